"""What a file says is checked before a graph is built from it; nodes out of order are put in order."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import graph, node, op_types, value
from onnx import TensorProto, helper

from onnxq.errors import ModelError
from onnxq.graph_checks import check_and_sort

PATH = Path("model.onnx")
MATMUL = node("MatMul", ["X", "W"], ["Y"], name="fc")
SPARSE = helper.make_sparse_tensor(
    helper.make_tensor("bias", TensorProto.FLOAT, [1], [1.0]),
    helper.make_tensor("at", TensorProto.INT64, [1], [2]),
    [4],
)


def unchecked(*nodes: onnx.NodeProto, opset: int = 17) -> onnx.ModelProto:
    """A model that onnx's checker need not like."""
    main = graph(nodes, [value("X", ["M", 4])], [value("Y", ["M", 4])], {"W": np.ones((4, 4), np.float32)})
    return helper.make_model(main, opset_imports=[helper.make_opsetid("", opset)])


def refused(proto: onnx.ModelProto, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        check_and_sort(PATH, proto)
    assert "export the model" in str(caught.value)


def branch(*nodes: onnx.NodeProto, output: str) -> onnx.GraphProto:
    return graph(nodes, outputs=[value(output, None)])


@pytest.mark.parametrize(
    ("op_type", "inputs", "message"),
    [
        ("Gemm", ["X"], r"Gemm 'broken' has 1 input, expected at least 2 \('B' is missing\)"),
        ("Conv", ["X"], r"Conv 'broken' has 1 input, expected at least 2 \('W' is missing\)"),
        ("Identity", [], r"Identity 'broken' has 0 inputs, expected at least 1"),
        ("Concat", [], r"Concat 'broken' has 0 inputs, expected at least 1"),
    ],
)
def test_a_node_has_the_inputs_that_its_schema_demands(op_type, inputs, message):
    refused(unchecked(node(op_type, inputs, ["Y"], name="broken")), message)


def test_a_node_has_the_outputs_that_its_schema_demands():
    refused(
        unchecked(MATMUL, node("Relu", ["Y"], [], name="broken")), "Relu 'broken' has 0 outputs, expected at least 1"
    )


def test_an_optional_input_may_be_left_out():
    check_and_sort(PATH, unchecked(node("Gemm", ["X", "W"], ["a"]), node("Clip", ["a"], ["Y"])))


def test_the_schema_is_that_of_the_models_opset():
    squeeze = node("Squeeze", ["X"], ["Y"], axes=[0])
    check_and_sort(PATH, unchecked(squeeze, opset=11))
    refused(unchecked(node("Unsqueeze", ["X"], ["Y"]), opset=13), r"'axes' is missing")


def test_a_name_that_nothing_produces():
    refused(unchecked(node("MatMul", ["X", "V"], ["Y"], name="fc")), "MatMul 'fc' reads 'V', which nothing produces")


def test_an_output_that_nothing_produces():
    refused(unchecked(node("MatMul", ["X", "W"], ["Z"])), "nothing produces the output 'Y'")


def test_a_name_of_a_sibling_branch_is_not_in_scope():
    then = branch(node("Relu", ["X"], ["inner"]), output="inner")
    other = branch(node("Relu", ["inner"], ["o"], name="lost"), output="o")
    choose = node("If", ["X"], ["Y"], then_branch=then, else_branch=other)
    refused(unchecked(choose), "Relu 'lost' reads 'inner'")


def test_a_circle():
    nodes = [node("MatMul", ["Y", "W"], ["z"], name="one"), node("MatMul", ["z", "W"], ["Y"], name="two")]
    refused(unchecked(*nodes), "in a circle .*MatMul 'one'.*MatMul 'two'")


def test_nodes_out_of_order_are_put_in_order():
    proto = unchecked(node("Relu", ["z"], ["Y"]), node("MatMul", ["X", "W"], ["z"]))
    check_and_sort(PATH, proto)
    assert op_types(proto.graph) == ["MatMul", "Relu"]
    onnx.checker.check_model(proto)


def test_what_a_branch_reads_comes_before_it_and_branches_are_ordered_themselves():
    then = branch(node("Identity", ["X"], ["p"]), output="p")
    other = branch(node("Relu", ["t"], ["o"]), node("Tanh", ["late"], ["t"]), output="o")
    choose = node("If", ["c"], ["Y"], then_branch=then, else_branch=other)
    proto = unchecked(choose, node("Sigmoid", ["X"], ["late"]), node("Not", ["late"], ["c"]))
    check_and_sort(PATH, proto)
    assert op_types(proto.graph) == ["Sigmoid", "Not", "If", "Tanh", "Relu", "Identity"]


def test_nodes_in_order_stay_where_they_are():
    nodes = [node("Relu", ["X"], ["a"]), node("Tanh", ["X"], ["b"]), node("Add", ["b", "a"], ["Y"])]
    proto = unchecked(*nodes)
    check_and_sort(PATH, proto)
    assert op_types(proto.graph) == ["Relu", "Tanh", "Add"]


def test_sparse_initializers_and_constants_are_refused_by_name():
    proto = unchecked(MATMUL)
    proto.graph.sparse_initializer.append(SPARSE)
    refused(proto, "initializer 'bias' is a sparse tensor")
    constant = node("Constant", [], ["s"], name="mask", sparse_value=SPARSE)
    refused(unchecked(MATMUL, constant), "attribute 'sparse_value' of Constant 'mask' is a sparse tensor")
