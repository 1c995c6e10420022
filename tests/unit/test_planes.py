"""Planes: the layout of kernels/LAYOUTS.md, and the function bodies that unpack it."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from onnxq.plane_ops import codebook_matmul, codebook_op_name, plane_matmul, plane_op_name
from onnxq.planes import PLANE_BITS, pack_plane, split_codes, unpack_plane

RNG = np.random.default_rng(7)
BLOCK = 32
ROUNDING = 1e-6  # float32 sums of some hundred products


def codes_of(bits: int, rows: int, columns: int = 5) -> np.ndarray:
    return RNG.integers(0, 1 << bits, (rows, columns)).astype(np.uint8)


@given(bits=st.sampled_from([1, 2, 4, 8]), rows=st.integers(1, 40))
def test_packing_a_plane_loses_nothing(bits: int, rows: int) -> None:
    codes = codes_of(bits, rows)
    plane = pack_plane(codes, bits)
    assert plane.shape == (-(-rows * bits // 8), 5)
    assert (unpack_plane(plane, bits, rows) == codes).all()


def test_a_byte_holds_codes_that_lie_r_rows_apart() -> None:
    """The formula of LAYOUTS.md, spelled out for six rows of two bits: R = 2, four fields."""
    codes = np.array([[1], [2], [3], [0], [2], [1]], np.uint8)
    expected = [1 | 3 << 2 | 2 << 4, 2 | 0 << 2 | 1 << 4]
    assert pack_plane(codes, 2)[:, 0].tolist() == expected


@pytest.mark.parametrize("bits", [3, 5, 6])
def test_two_planes_make_one_code(bits: int) -> None:
    codes = codes_of(bits, 19)
    low, high = PLANE_BITS[bits]
    planes = split_codes(codes, bits)
    assert (unpack_plane(planes["low"], low, 19) | unpack_plane(planes["high"], high, 19) << low == codes).all()


def run(function: ir.Function, a: np.ndarray, weight: dict[str, np.ndarray]) -> np.ndarray:
    """One node calling the function, in the ONNX reference evaluator."""
    node = helper.make_node(
        function.name, ["A", *weight], ["Y"], domain="onnxq", block_size=BLOCK, rows=a.shape[1], compute="int8"
    )
    graph = helper.make_graph(
        [node],
        "one_node",
        [helper.make_tensor_value_info("A", TensorProto.FLOAT, ["M", a.shape[1]])],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, ["M", None])],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in weight.items()],
    )
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("onnxq", 1)]
    model = helper.make_model(graph, opset_imports=imports, functions=[ir.to_proto(function)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return ReferenceEvaluator(model).run(None, {"A": a})[0]


def error(got: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("zero_points", [False, True])
@pytest.mark.parametrize("bits", [3, 5, 6])
def test_the_body_multiplies_by_the_dequantized_weight(bits: int, zero_points: bool) -> None:
    k = 83
    codes, scales = codes_of(bits, k), RNG.uniform(0.1, 0.3, (3, 5)).astype(np.float16)
    zero = RNG.integers(0, 1 << bits, (3, 5)).astype(np.uint8) if zero_points else None
    a = RNG.standard_normal((4, k)).astype(np.float32)
    rows = np.arange(k) // BLOCK
    offset = (1 << (bits - 1)) if zero is None else zero[rows].astype(np.float64)
    expected = a @ ((codes.astype(np.float64) - offset) * scales[rows].astype(np.float64))
    weight = {**split_codes(codes, bits), "scales": scales} | ({} if zero is None else {"zero_points": zero})
    function = plane_matmul(bits, zero_points=zero_points, opset=21)
    assert function.name == plane_op_name(bits, zero_points=zero_points)
    assert error(run(function, a, weight), expected) < ROUNDING
    swapped = {**weight, "high": weight["high"][::-1]}  # the twin that must fail
    assert error(run(function, a, swapped), expected) > 100 * ROUNDING


@pytest.mark.parametrize("dim", [1, 2, 4, 8])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_the_body_looks_codes_up_along_k(bits: int, dim: int) -> None:
    k = 96
    indices, scales = codes_of(bits, k // dim), RNG.uniform(0.1, 0.3, (3, 5)).astype(np.float16)
    codebook = RNG.standard_normal((1 << bits, dim)).astype(np.float16)
    values = np.array([[codebook[indices[row // dim, n], row % dim] for n in range(5)] for row in range(k)], np.float64)
    a = RNG.standard_normal((4, k)).astype(np.float32)
    expected = a @ (values * scales[np.arange(k) // BLOCK].astype(np.float64))
    weight = {**split_codes(indices, bits), "codebook": codebook, "scales": scales}
    function = codebook_matmul(bits, opset=21)
    assert function.name == codebook_op_name(bits)
    assert error(run(function, a, weight), expected) < ROUNDING
    shifted = {**weight, "codebook": np.roll(codebook, 1, axis=0)}  # the twin that must fail
    assert error(run(function, a, shifted), expected) > 100 * ROUNDING
