"""Which nodes run on codes: paths between convolutions and products, nothing that would only gain a Q and a DQ."""

import numpy as np
import onnx
import pytest
from graphs import graph, in_memory, model, node, value

from onnxq.normalise import normalise
from onnxq.qdq.layout import Layout, lay_out

RNG = np.random.default_rng(0)
C = 8


def weights(*names, shape=(C, C, 1, 1)):
    return {name: RNG.standard_normal(shape).astype(np.float32) for name in names}


def network(nodes, *, inputs=("x",), outputs=("y",), shape=(1, C, 8, 8), constants=None) -> onnx.ModelProto:
    return model(
        graph(
            nodes,
            [value(name, list(shape)) for name in inputs],
            [value(name, [None] * len(shape)) for name in outputs],
            {**weights("W1", "W2", "W3"), **(constants or {})},
        )
    )


def layout_of(proto, barred=None, **options) -> Layout:
    return lay_out(normalise(in_memory(proto), opset=21).ir, barred or {}, **options)


def kernels(layout):
    return {integer.node: integer.kernel for integer in layout.integers}


def reasons(layout):
    return {item.node: item.reason for item in layout.floats}


def between(*middle, last="m", **options):
    """Conv -> middle -> Conv."""
    nodes = [node("Conv", ["x", "W1"], ["a"], name="first"), *middle, node("Conv", [last, "W2"], ["y"], name="last")]
    return network(nodes, **options)


def test_a_convolution_is_an_anchor_and_its_output_becomes_codes():
    layout = layout_of(network([node("Conv", ["x", "W1"], ["y"], name="conv")]))
    assert kernels(layout) == {"conv": "QLinearConv"}
    assert [(tensor.name, tensor.integer) for tensor in layout.tensors.values()] == [("x", False), ("y", True)]


@pytest.mark.parametrize("op", ["Relu", "Clip"])
def test_saturation_is_absorbed(op):
    bounds = {"low": np.float32(-1), "high": np.float32(6)}
    operands = ["a"] if op == "Relu" else ["a", "low", "high"]
    layout = layout_of(between(node(op, operands, ["m"], name="cut"), constants=bounds))
    assert kernels(layout) == {"first": "QLinearConv", "last": "QLinearConv"}
    assert layout.integers[0].absorbs == ("cut",)
    assert layout.tensors["m"].bounds == ((0.0, np.inf) if op == "Relu" else (-1.0, 6.0))
    assert "a" not in layout.tensors


@pytest.mark.parametrize("bounds", [(1.0, 6.0), (-6.0, -1.0)], ids=str)
def test_a_clip_that_excludes_zero_cannot_be_a_saturation(bounds):
    constants = {"low": np.float32(bounds[0]), "high": np.float32(bounds[1])}
    layout = layout_of(between(node("Clip", ["a", "low", "high"], ["m"], name="cut"), constants=constants))
    assert "nothing in front of it could absorb it" in reasons(layout)["cut"]


def test_a_relu_whose_input_others_read_is_kept():
    middle = [node("Relu", ["a"], ["r"], name="relu"), node("Add", ["a", "r"], ["m"], name="add")]
    layout = layout_of(between(*middle))
    assert kernels(layout) == {"first": "QLinearConv", "add": "QLinearAdd", "last": "QLinearConv"}
    assert "others too" in reasons(layout)["relu"]


@pytest.mark.parametrize("op", ["Add", "Mul"])
def test_arithmetic_joins_between_convolutions_only(op):
    joined = layout_of(between(node(op, ["a", "a"], ["m"], name="op")))
    assert kernels(joined)["op"] == f"QLinear{op}"
    behind = layout_of(network([node("Conv", ["x", "W1"], ["a"], name="conv"), node(op, ["a", "a"], ["y"], name="op")]))
    assert "what reads its output is float" in reasons(behind)["op"]
    in_front = layout_of(
        network([node(op, ["x", "x"], ["a"], name="op"), node("Conv", ["a", "W1"], ["y"], name="conv")])
    )
    assert "what it reads is float" in reasons(in_front)["op"]


def test_a_chain_that_a_float_operator_cuts_is_given_up_to_its_ends():
    middle = [
        node("Mul", ["a", "a"], ["b"], name="before"),
        node("Tanh", ["b"], ["c"], name="tanh"),
        node("Mul", ["c", "c"], ["m"], name="behind"),
    ]
    layout = layout_of(between(*middle))
    assert set(kernels(layout)) == {"first", "last"}
    assert set(reasons(layout)) == {"before", "tanh", "behind"}


def test_a_pooling_to_one_value_pays_without_an_integer_reader():
    layout = layout_of(
        network([node("Conv", ["x", "W1"], ["a"], name="conv"), node("GlobalAveragePool", ["a"], ["y"], name="pool")])
    )
    assert kernels(layout)["pool"] == "QLinearGlobalAveragePool"


@pytest.mark.parametrize("op", ["AveragePool", "Softmax"])
def test_slower_integer_kernels_only_when_asked_for(op):
    settings = {"kernel_shape": [2, 2]} if op == "AveragePool" else {"axis": 1}
    proto = between(node(op, ["a"], ["m"], name="op", **settings))
    assert "slower" in reasons(layout_of(proto))["op"]
    assert kernels(layout_of(proto, everything=True))["op"] == f"QLinear{op}"
    assert kernels(layout_of(proto, insisted={"op"}))["op"] == f"QLinear{op}"


def test_moved_values_share_the_scale_of_where_they_come_from():
    middle = [
        node("MaxPool", ["a"], ["p"], name="pool", kernel_shape=[2, 2]),
        node("Transpose", ["p"], ["m"], name="transpose", perm=[0, 1, 3, 2]),
    ]
    layout = layout_of(between(*middle))
    assert [layout.tensors[name].root for name in ("a", "p", "m", "y")] == ["a", "a", "a", "y"]
    assert [tensor.name for tensor in layout.roots] == ["x", "a", "y"]


def matmul_network(k=128, n=160, *, bias=True, rank=2, behind=None):
    operands = {"W": RNG.standard_normal((k, n)).astype(np.float32), "b": np.ones(n, np.float32)}
    nodes = [node("MatMul", ["x", "W"], ["p"], name="fc")]
    last = "p"
    if bias:
        nodes.append(node("Add", ["p", "b"], ["s"], name="bias"))
        last = "s"
    if behind:
        nodes.append(node("MatMul", [last, "V"], ["y"], name="next"))
        operands["V"] = RNG.standard_normal((n, 128)).astype(np.float32)
        last = "y"
    shape = [4] * (rank - 1) + [k]
    return model(graph(nodes, [value("x", shape)], [value(last, [None] * rank)], operands))


def test_a_product_of_two_dims_with_bias_is_a_gemm():
    layout = layout_of(matmul_network())
    assert kernels(layout) == {"fc": "QGemm"}
    assert (layout.integers[0].bias, layout.integers[0].absorbs, layout.integers[0].outputs) == ("b", ("bias",), ())


def test_a_product_of_three_dims_leaves_its_sums_in_float():
    layout = layout_of(matmul_network(rank=3))
    assert kernels(layout) == {"fc": "MatMulIntegerToFloat"}
    assert layout.integers[0].bias is None


def test_a_product_read_by_products_alone_writes_codes():
    assert kernels(layout_of(matmul_network(rank=3, bias=False, behind=True))) == {
        "fc": "QLinearMatMul",
        "next": "MatMulIntegerToFloat",
    }


def test_a_small_product_stays_float():
    assert "fewer than 16384 weights" in reasons(layout_of(matmul_network(64, 32)))["fc"]
    assert kernels(layout_of(matmul_network(64, 32), insisted={"fc"})) == {"fc": "QGemm"}


def test_a_barred_node_stays_float_with_its_reason():
    layout = layout_of(between(node("Relu", ["a"], ["m"], name="relu")), {"first": "the user said so"})
    assert reasons(layout)["first"] == "the user said so"
    assert set(kernels(layout)) == {"last"}


def test_a_barred_relu_is_not_absorbed():
    layout = layout_of(between(node("Relu", ["a"], ["m"], name="relu")), {"relu": "kept"})
    assert layout.integers[0].absorbs == ()
    assert layout.tensors["a"].integer
