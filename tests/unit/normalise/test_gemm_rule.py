"""Gemm over a constant weight becomes MatMul and Add, for every attribute and every shape of C."""

import numpy as np
import onnx
import pytest
from agreement import assert_same
from graphs import graph, model, node, op_types, value

K, N, M = 40, 30, 3


def gemm_model(
    *,
    trans_a: int = 0,
    trans_b: int = 0,
    alpha: float = 1.0,
    beta: float = 1.0,
    c: tuple[int, ...] | None = (N,),
    c_is_input: bool = False,
    dtype=np.float32,
    name: str = "fc",
) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    weights = {"W": rng.standard_normal((N, K) if trans_b else (K, N)).astype(dtype)}
    inputs = [value("X", [K, M] if trans_a else [M, K], dtype)]
    if c is not None and c_is_input:
        inputs.append(value("C", list(c), dtype))
    elif c is not None:
        weights["C"] = rng.standard_normal(c).astype(dtype)
    operands = ["X", "W", *(["C"] if c is not None else [])]
    attributes = {"transA": trans_a, "transB": trans_b, "alpha": alpha, "beta": beta}
    return model(
        graph([node("Gemm", operands, ["Y"], name=name, **attributes)], inputs, [value("Y", [M, N], dtype)], weights)
    )


@pytest.mark.parametrize(("trans_a", "trans_b"), [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (0.5, 1.0), (1.0, 2.5), (-2.0, 0.25)])
@pytest.mark.parametrize("c", [None, (), (1,), (N,), (1, N), (M, 1), (M, N)], ids=str)
def test_every_gemm_is_a_matmul(trans_a, trans_b, alpha, beta, c):
    result = assert_same(gemm_model(trans_a=trans_a, trans_b=trans_b, alpha=alpha, beta=beta, c=c), seeds=1)
    ops = op_types(result)
    assert ops.count("MatMul") == 1
    assert "Gemm" not in ops
    assert ops.count("Transpose") == trans_a  # the weight's own transpose is folded
    assert ops.count("Mul") == (alpha != 1.0)  # beta is folded into C
    assert ops.count("Add") == (c is not None)


@pytest.mark.parametrize("beta", [1.0, 0.5, 0.0])
@pytest.mark.parametrize("c", [(N,), (M, 1), (1, 1)], ids=str)
def test_c_computed_at_run_time(beta, c):
    result = assert_same(gemm_model(beta=beta, c=c, c_is_input=True))
    assert sorted(op_types(result)) == {1.0: ["Add", "MatMul"], 0.5: ["Add", "MatMul", "Mul"], 0.0: ["MatMul"]}[beta]


def test_beta_zero_drops_a_c_that_is_not_finite():
    proto = gemm_model(beta=0.0)
    bias = next(item for item in proto.graph.initializer if item.name == "C")
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(N, np.nan, np.float32), "C"))
    assert op_types(assert_same(proto)) == ["MatMul"]


def test_an_empty_c_is_no_c():
    proto = gemm_model(c=None)
    proto.graph.node[0].input.append("")
    assert op_types(assert_same(proto)) == ["MatMul"]


@pytest.mark.parametrize(("trans_b", "alpha", "beta"), [(0, 1.0, 1.0), (1, 0.5, 2.0)])
def test_float16(trans_b, alpha, beta):
    assert_same(gemm_model(trans_b=trans_b, alpha=alpha, beta=beta, dtype=np.float16))


def test_the_matmul_takes_the_gemms_name_and_the_output_keeps_its_own():
    result = assert_same(gemm_model(alpha=0.5))
    assert {item.op_type: item.name for item in result.graph}["MatMul"] == "fc"
    assert result.graph.outputs[0].name == "Y"


def test_nodes_made_from_a_gemm_without_a_name_are_named_after_its_output():
    result = assert_same(gemm_model(alpha=0.5, name=""))
    assert not [item.name for item in result.graph if "None" in item.name]


def test_a_weight_shared_by_two_gemms_stays_one_weight():
    rng = np.random.default_rng(0)
    proto = model(
        graph(
            [
                node("Gemm", ["X", "W", "b1"], ["H"], transB=1, name="first"),
                node("Gemm", ["H", "W", "b2"], ["Y"], transB=1, alpha=0.5, name="second"),
            ],
            [value("X", ["M", K])],
            [value("Y", ["M", K])],
            {
                "W": rng.standard_normal((K, K)).astype(np.float32),
                "b1": np.ones(K, np.float32),
                "b2": np.ones(K, np.float32),
            },
        )
    )
    result = assert_same(proto)
    weights = {item.inputs[1].name for item in result.graph if item.op_type == "MatMul"}
    assert len(weights) == 1


def test_a_gemm_without_a_constant_weight_is_left_alone():
    proto = model(
        graph(
            [node("Gemm", ["X", "B"], ["Y"], name="fc")],
            [value("X", [M, K]), value("B", [K, N])],
            [value("Y", [M, N])],
        )
    )
    assert op_types(assert_same(proto)) == ["Gemm"]
