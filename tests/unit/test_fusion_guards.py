"""Fusion guards: Relu and Clip behind a packed node, under names that onnxruntime does not fuse."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from onnxq.fusion_guards import guard_fusions, guard_gathers

X = np.linspace(-3, 3, 24, dtype=np.float32).reshape(4, 6)
CLIPS = {"both": ["low", "high"], "low only": ["low"], "high only": ["", "high"]}


def chain(*nodes: onnx.NodeProto) -> ir.Model:
    """x -> MatMul by a constant -> nodes -> y; the MatMul stands for a packed node."""
    constants = {
        "w": np.eye(6, dtype=np.float32),
        "bias": np.ones(6, np.float32),
        "low": np.array(-1, np.float32),
        "high": np.array(1.5, np.float32),
    }
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["h"], name="packed"), *nodes],
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 6])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10))


def guarded(model: ir.Model) -> tuple[int, list[str], np.ndarray, np.ndarray]:
    before = ReferenceEvaluator(ir.to_proto(model)).run(None, {"x": X})[0]
    count = guard_fusions([model.graph.node("packed")])
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    after = ReferenceEvaluator(proto).run(None, {"x": X})[0]
    return count, [node.op_type for node in model.graph], before, after


def test_a_relu_becomes_a_max() -> None:
    count, kinds, before, after = guarded(chain(helper.make_node("Relu", ["h"], ["y"], name="act")))
    assert (count, kinds) == (1, ["MatMul", "Max"])
    assert (before == after).all()
    assert (after == 0).any()


@pytest.mark.parametrize("bounds", CLIPS.values(), ids=CLIPS)
def test_a_clip_behind_the_bias_becomes_max_and_min(bounds: list[str]) -> None:
    add = helper.make_node("Add", ["h", "bias"], ["b"])
    count, kinds, before, after = guarded(chain(add, helper.make_node("Clip", ["b", *bounds], ["y"], name="act")))
    expected = [op_type for op_type, bound in zip(("Max", "Min"), (*bounds, ""), strict=False) if bound]
    assert (count, kinds) == (1, ["MatMul", "Add", *expected])
    assert (before == after).all()


def test_other_activations_and_shared_products_are_left_alone() -> None:
    assert guarded(chain(helper.make_node("Tanh", ["h"], ["y"])))[0] == 0
    relu, second = helper.make_node("Relu", ["h"], ["r"]), helper.make_node("Add", ["r", "h"], ["y"])
    assert guarded(chain(relu, second))[0] == 0


def gathered(*nodes: onnx.NodeProto) -> tuple[int, list[str]]:
    """ids -> PackedGather -> nodes; returns how many gathers were guarded, and the operators then."""
    constants = {"w": np.eye(6, dtype=np.float32), "shape": np.array([-1, 6]), "zero": np.zeros((1, 6), np.float32)}
    graph = helper.make_graph(
        [helper.make_node("PackedGather", ["x", "ids"], ["h"], name="packed", domain="onnxq"), *nodes],
        "gathered",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 6]),
            helper.make_tensor_value_info("ids", TensorProto.INT64, ["M"]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("onnxq", 1)]
    model = ir.from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=10))
    return guard_gathers([model.graph.node("packed")]), [node.op_type for node in model.graph]


def test_rows_that_go_straight_into_a_product_are_kept_apart_from_it() -> None:
    product = helper.make_node("MatMul", ["h", "w"], ["y"])
    assert gathered(product) == (1, ["PackedGather", "Max", "MatMul"])
    packed = helper.make_node("PackedMatMul", ["h", "w"], ["y"], domain="onnxq")
    assert gathered(packed) == (1, ["PackedGather", "Max", "PackedMatMul"])
    view, product = helper.make_node("Reshape", ["h", "shape"], ["v"]), helper.make_node("MatMul", ["v", "w"], ["y"])
    assert gathered(view, product) == (1, ["PackedGather", "Max", "Reshape", "MatMul"])


def test_rows_that_something_else_reads_first_need_no_guard() -> None:
    add, product = helper.make_node("Add", ["h", "zero"], ["v"]), helper.make_node("MatMul", ["v", "w"], ["y"])
    assert gathered(add, product) == (0, ["PackedGather", "Add", "MatMul"])
