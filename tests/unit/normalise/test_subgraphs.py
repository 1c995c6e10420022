"""Every rule works inside If, Loop and Scan, whatever scope the weight lives in."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from agreement import assert_same
from graphs import graph, model, node, op_types, value

K = 24
RNG = np.random.default_rng(0)


def square() -> np.ndarray:
    return (RNG.standard_normal((K, K)) / 5).astype(np.float32)


def vector() -> np.ndarray:
    return RNG.standard_normal(K).astype(np.float32)


def gemm(source: str, weight: str, target: str, bias: str = "b") -> onnx.NodeProto:
    return node("Gemm", [source, weight, bias], [target], transB=1, alpha=0.5, name=f"fc_{target}")


def if_model(then: onnx.GraphProto, other: onnx.GraphProto, weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    return model(
        graph(
            [node("If", ["flag"], ["Y"], then_branch=then, else_branch=other, name="if")],
            [value("X", ["M", K]), value("flag", [], np.bool_)],
            [value("Y", ["M", K])],
            weights,
        )
    )


def both_ways(proto: onnx.ModelProto) -> ir.Model:
    assert_same(proto, flag=np.array(False))
    return assert_same(proto, flag=np.array(True))


def branch(name: str, weights: dict[str, np.ndarray] | None = None, *, weight: str = "W") -> onnx.GraphProto:
    return graph([gemm("X", weight, name)], [], [value(name, ["M", K])], weights, name=name)


def test_weights_inside_the_branches():
    weights = [{"W": square(), "b": vector()}, {"W": square(), "b": vector()}]  # the same names, legally
    result = both_ways(if_model(branch("T", weights[0]), branch("E", weights[1]), {}))
    assert op_types(result).count("MatMul") == 2


def test_a_weight_of_the_outer_scope():
    result = both_ways(if_model(branch("T"), branch("E"), {"W": square(), "b": vector()}))
    matmuls = [item for item in ir.traversal.RecursiveGraphIterator(result.graph) if item.op_type == "MatMul"]
    assert len({id(item.inputs[1]) for item in matmuls}) == 1


def test_constants_inside_a_branch_that_are_its_output():
    constant = node("Constant", [], ["T"], value=onnx.numpy_helper.from_array(RNG.standard_normal((3, K)).astype("f4")))
    then = graph([constant], [], [value("T", [3, K])], name="T")
    both_ways(if_model(then, branch("E"), {"W": square(), "b": vector()}))


def test_an_identity_that_brings_an_outer_value_into_a_branch():
    """Taking such an Identity away would leave the branch an output that it does not compute."""
    then = graph([node("Identity", ["X"], ["T"])], [], [value("T", ["M", K])], name="T")
    both_ways(if_model(then, branch("E"), {"W": square(), "b": vector()}))


def test_an_identity_of_an_outer_weight_inside_a_branch():
    nodes = [node("Identity", ["W"], ["I"]), node("MatMul", ["X", "I"], ["T"], name="fc_T")]
    then = graph(nodes, [], [value("T", ["M", K])], name="T")
    both_ways(if_model(then, branch("E"), {"W": square(), "b": vector()}))


def test_a_transposed_outer_weight_inside_a_branch():
    nodes = [node("Transpose", ["W"], ["I"], perm=[1, 0]), node("MatMul", ["X", "I"], ["T"], name="fc_T")]
    then = graph(nodes, [], [value("T", ["M", K])], name="T")
    result = both_ways(if_model(then, branch("E"), {"W": square(), "b": vector()}))
    assert "Transpose" not in op_types(result)


def test_a_branch_inside_a_branch():
    inner = node("If", ["flag"], ["T"], then_branch=branch("T2"), else_branch=branch("E2"), name="inner")
    then = graph([inner], [], [value("T", ["M", K])], name="T")
    result = both_ways(if_model(then, branch("E"), {"W": square(), "b": vector()}))
    assert op_types(result).count("MatMul") == 3


def test_a_name_used_inside_a_branch_is_not_given_to_an_outer_value():
    """The outer weight's derivation would be called W_transposed, as a value inside the branch is: it would hide it."""
    nodes = [
        node("Relu", ["X"], ["W_transposed"]),
        node("Gemm", ["W_transposed", "W", "b"], ["T"], transB=1, name="fc_T"),
    ]
    then = graph(nodes, [], [value("T", ["M", K])], name="T")
    both_ways(if_model(then, branch("E"), {"W": square(), "b": vector()}))


def loop_model(body_weights: dict[str, np.ndarray], outer_weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    """Three times x = 0.5 * x @ W.T + b, the steps stacked as a second output."""
    body = graph(
        [gemm("x", "W", "x_next"), node("Identity", ["x_next"], ["seen"]), node("Identity", ["go"], ["go_on"])],
        [value("i", [], np.int64), value("go", [], np.bool_), value("x", ["M", K])],
        [value("go_on", [], np.bool_), value("x_next", ["M", K]), value("seen", ["M", K])],
        body_weights,
        name="body",
    )
    return model(
        graph(
            [node("Loop", ["count", "", "X"], ["Y", "steps"], body=body, name="loop")],
            [value("X", ["M", K])],
            [value("Y", ["M", K]), value("steps", [None, "M", K])],
            {"count": np.array(3, np.int64), **outer_weights},
        )
    )


@pytest.mark.parametrize("inside", [True, False], ids=["weights inside", "weights outside"])
def test_loop(inside):
    weights = {"W": square(), "b": vector()}
    result = assert_same(loop_model(weights if inside else {}, {} if inside else weights))
    assert "MatMul" in op_types(result)


@pytest.mark.parametrize("inside", [True, False], ids=["weights inside", "weights outside"])
def test_scan(inside):
    weights = {"W": square(), "b": vector()}
    body = graph(
        [node("Add", ["h", "x"], ["s"]), gemm("s", "W", "h_next"), node("Identity", ["h_next"], ["y"])],
        [value("h", [1, K]), value("x", [1, K])],
        [value("h_next", [1, K]), value("y", [1, K])],
        weights if inside else {},
        name="body",
    )
    proto = model(
        graph(
            [node("Scan", ["H", "X"], ["last", "Y"], body=body, num_scan_inputs=1, name="scan")],
            [value("H", [1, K]), value("X", ["T", 1, K])],
            [value("last", [1, K]), value("Y", ["T", 1, K])],
            {} if inside else weights,
        )
    )
    assert "MatMul" in op_types(assert_same(proto))
