"""3, 5 and 6 bits and codebooks: the layout, the body in stock onnxruntime, and our kernels."""

import re

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator
from packed_nodes import relative_error, run, session
from planes import PlaneWeight, pack_plane, plane_model, unpack_plane

NF4 = [-1.0, -0.6962, -0.5251, -0.3949, -0.2844, -0.1848, -0.0911, 0.0,
       0.0796, 0.1609, 0.2461, 0.3379, 0.4407, 0.5626, 0.7230, 1.0]  # fmt: skip


def plane_weight(bits, k=100, n=37, *, block=32, zero_points=False, scales=np.float16, seed=0) -> PlaneWeight:
    rng = np.random.default_rng(seed)
    shape = (-(-k // block), n)
    return PlaneWeight(
        codes=rng.integers(0, 1 << bits, (k, n)).astype(np.uint8),
        scales=(rng.uniform(0.25, 1, shape) / (1 << bits)).astype(scales),
        zero_points=rng.integers(0, 1 << bits, shape).astype(np.uint8) if zero_points else None,
        codebook=None,
        bits=bits,
        block=block,
    )


def codebook_weight(bits, dim=1, k=104, n=37, *, block=32, scales=np.float16, entries=None, seed=0) -> PlaneWeight:
    rng = np.random.default_rng(seed)
    entries = entries or 1 << bits
    return PlaneWeight(
        codes=rng.integers(0, entries, (k // dim, n)).astype(np.uint8),
        scales=rng.uniform(0.25, 1, (-(-k // block), n)).astype(scales),
        zero_points=None,
        codebook=rng.standard_normal((entries, dim)).astype(scales),
        bits=bits,
        block=block,
    )


def rows_of_a(weight, m=5, dtype=np.float32, seed=1):
    a = np.random.default_rng(seed).standard_normal((m, weight.rows)).astype(dtype)
    return a, a.astype(np.float64) @ weight.dequantized()


@given(st.sampled_from([1, 2, 4]), st.integers(1, 70), st.integers(1, 9), st.integers(0, 99))
def test_planes_round_trip(bits, k, n, seed):
    codes = np.random.default_rng(seed).integers(0, 1 << bits, (k, n)).astype(np.uint8)
    plane = pack_plane(codes, bits)
    assert plane.shape == (-(-k * bits // 8), n)
    assert (unpack_plane(plane, bits, k) == codes).all()


ALL = [plane_weight(b, zero_points=z, seed=b) for b in (3, 5, 6) for z in (False, True)] + [
    codebook_weight(b, d, seed=b + d) for b in (2, 3, 4, 8) for d in (1, 2, 4, 8)
]


@pytest.mark.parametrize(
    "weight", ALL, ids=lambda w: f"{w.name}-{w.codebook.shape[1] if w.codebook is not None else ''}"
)
def test_the_body_is_right_without_the_library(weight):
    a, expected = rows_of_a(weight)
    model = plane_model(weight)
    onnx.checker.check_model(onnx.load_from_string(model), full_check=True)
    assert relative_error(ReferenceEvaluator(onnx.load_from_string(model)).run(None, {"A": a})[0], expected) < 1e-5
    # Stock onnxruntime fuses the plain widths into 8-bit MatMulNBits, with int8 activations.
    assert relative_error(run(model, None, a), expected) < (1e-5 if weight.codebook is not None else 0.01)


@given(
    bits=st.sampled_from([3, 5, 6]), k=st.integers(1, 300), n=st.integers(1, 70), m=st.integers(1, 40),
    block=st.sampled_from([16, 32, 64, 128, 256]), zero_points=st.booleans(),
    scales=st.sampled_from([np.float16, np.float32]), seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_odd_widths_with_the_library(library, bits, k, n, m, block, zero_points, scales, seed):
    weight = plane_weight(bits, k, n, block=block, zero_points=zero_points, scales=scales, seed=seed)
    a, expected = rows_of_a(weight, m)
    size = np.abs(a).astype(np.float64) @ np.abs(weight.dequantized())
    exact = run(plane_model(weight, compute="float"), library, a)
    assert (np.abs(exact - expected) <= (block + -(-k // block) + 2) * 2.0**-24 * size).all()
    # Half a step of the largest activation, for every weight: see test_matmul.int8_bound.
    y = run(plane_model(weight), library, a)
    step = np.abs(a).max() / 127
    assert (np.abs(y - expected) <= 1.01 * step / 2 * np.abs(weight.dequantized()).sum(axis=0) + 1e-6).all()


@given(
    bits=st.sampled_from([2, 3, 4, 8]), dim=st.sampled_from([1, 2, 4, 8]), groups=st.integers(1, 30),
    n=st.integers(1, 70), m=st.integers(1, 30), block=st.sampled_from([16, 32, 256]),
    scales=st.sampled_from([np.float16, np.float32]), seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_codebooks_with_the_library(library, bits, dim, groups, n, m, block, scales, seed):
    weight = codebook_weight(bits, dim, dim * groups, n, block=block, scales=scales, seed=seed)
    a, expected = rows_of_a(weight, m)
    size = np.abs(a).astype(np.float64) @ np.abs(weight.dequantized())
    c = (block + -(-weight.rows // block) + 2) * 2.0**-24
    assert (np.abs(run(plane_model(weight), library, a) - expected) <= c * size).all()


@pytest.mark.parametrize("weight", [plane_weight(3), plane_weight(5, zero_points=True), codebook_weight(4)])
def test_teeth_a_code_or_a_scale_that_is_wrong_is_seen(library, weight):
    a, expected = rows_of_a(weight)
    for wrong in (np.roll(weight.codes, 1, axis=0), weight.codes ^ 1):
        spoiled = PlaneWeight(wrong, weight.scales, weight.zero_points, weight.codebook, weight.bits, weight.block)
        assert relative_error(run(plane_model(spoiled), library, a), expected) > 0.02


def test_float16_activations(library):
    for weight in (plane_weight(6, zero_points=True), codebook_weight(4), codebook_weight(8, 4)):
        a, expected = rows_of_a(weight, dtype=np.float16)
        y = run(plane_model(weight, a=TensorProto.FLOAT16), library, a)
        assert y.dtype == np.float16
        assert relative_error(y, expected) < 0.01


@pytest.mark.parametrize(
    ("weight", "change", "message"),
    [
        (plane_weight(3), {"rows": None}, "the attribute rows (K) is missing"),
        (plane_weight(3), {"rows": 101}, "low has shape [25, 37], expected [26, 37]"),
        (plane_weight(5), {"rows": -(2**62)}, "the weight is empty: K=-4611686018427387904"),
        (plane_weight(5), {"rows": 2**62}, "the weight is too large: K=4611686018427387904"),
        (plane_weight(6), {"block_size": 64}, "scales has shape [4, 37], expected [2, 37]"),
        (codebook_weight(4, 4), {"rows": 106}, "rows=106 is not a multiple of the codebook's dim=4"),
        (codebook_weight(4, 3, k=99), {}, "expected a dim of 1, 2, 4 or 8"),
        (codebook_weight(2, 1, entries=5), {}, "expected 1 to 4 entries"),
    ],
)
def test_malformed_nodes_are_refused(library, weight, change, message):
    with pytest.raises(Exception, match=rf"'/fc'.*{re.escape(message)}"):
        session(plane_model(weight, **change), library)


def test_an_index_beyond_the_codebook_is_refused(library):
    weight = codebook_weight(4, entries=10)
    weight.codes[3, 5] = 12
    with pytest.raises(Exception, match=r"index 12 at \[3, 5\] is beyond the codebook's 10 entries"):
        session(plane_model(weight), library)


def test_nf4_is_a_codebook_of_16(library):
    weight = codebook_weight(4, k=512, n=256)
    weight = PlaneWeight(weight.codes, weight.scales, None, np.array(NF4, np.float16)[:, None], 4, 32)
    a, expected = rows_of_a(weight, 1)
    assert relative_error(run(plane_model(weight), library, a), expected) < 1e-5
