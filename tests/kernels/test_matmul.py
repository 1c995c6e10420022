"""PackedMatMul in all its types against the float64 product of the dequantized weight."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto
from packed_nodes import Weight, matmul_model, random_weight, relative_error, run, session

ELEMENT = {np.float32: TensorProto.FLOAT, np.float16: TensorProto.FLOAT16}


def float_bound(a: np.ndarray, weight: Weight) -> np.ndarray:
    """How far compute="float" may be from float64, per element: c * sum |a| |w|.

    A term passes through at most `block` additions within its block, one multiplication by the scale and
    one addition per block, each within 2^-24 of its own size (codes and zero points are exact), hence
    c = (block + blocks + 2) * 2^-24.
    """
    k = weight.codes.shape[0]
    rounding = (weight.block + -(-k // weight.block) + 2) * 2.0**-24
    return rounding * (np.abs(a.astype(np.float64)) @ np.abs(_terms(weight)))


def _terms(weight: Weight) -> np.ndarray:
    """|code| + |zero point| times the scale: what the sums are made of before they cancel."""
    return np.abs(weight.dequantized())


def int8_bound(a: np.ndarray, weight: Weight) -> np.ndarray:
    """How far compute="int8" may be from float64, per element.

    A code is off by at most half a step of max|a| / 127 of its block, so the product is off by at most
    sum over blocks of step / 2 * sum |w|; the rest is float rounding, far below 1% of that.
    """
    k, block = a.shape[-1], weight.block
    padded = np.zeros((*a.shape[:-1], -(-k // block) * block))
    padded[..., :k] = np.abs(a.astype(np.float64))
    step = padded.reshape(*a.shape[:-1], -1, block).max(axis=-1) / 127
    w = np.zeros((padded.shape[-1], weight.codes.shape[1]))
    w[:k] = np.abs(weight.dequantized())
    return 1.01 * step / 2 @ w.reshape(-1, block, w.shape[1]).sum(axis=1) + float_bound(a, weight)


def output_rounding(expected: np.ndarray, dtype) -> np.ndarray:
    """Half a unit in the last place of a float16 result."""
    return np.abs(expected) * 2.0**-11 + 2.0**-24 if dtype == np.float16 else 0.0


CASES = st.fixed_dictionaries(
    {
        "k": st.integers(1, 300),
        "n": st.integers(1, 70),
        "m": st.integers(1, 40),
        "bits": st.sampled_from([2, 4, 8]),
        "block": st.sampled_from([16, 32, 64, 128, 256]),
        "zero_points": st.booleans(),
        "transposed": st.booleans(),
        "half": st.booleans(),
        "scales": st.sampled_from([np.float16, np.float32]),
        "seed": st.integers(0, 1000),
    }
)


def draw_case(case):
    rng = np.random.default_rng(case["seed"])
    weight = random_weight(
        rng, case["k"], case["n"], bits=case["bits"], block=case["block"], zero_points=case["zero_points"],
        scales=case["scales"],
    )  # fmt: skip
    dtype = np.float16 if case["half"] else np.float32
    a = rng.standard_normal((case["m"], case["k"])).astype(dtype)
    return weight, a


@given(CASES)
@settings(max_examples=60, deadline=None)
def test_int8_stays_within_the_rounding_of_the_activations(library, case):
    weight, a = draw_case(case)
    expected = a.astype(np.float64) @ weight.dequantized()
    y = run(matmul_model(weight, transposed=case["transposed"], a=ELEMENT[a.dtype.type]), library, a)
    assert y.dtype == a.dtype
    assert (np.abs(y - expected) <= int8_bound(a, weight) + output_rounding(expected, a.dtype)).all()


@given(CASES)
@settings(max_examples=60, deadline=None)
def test_float_stays_within_float_rounding(library, case):
    weight, a = draw_case(case)
    expected = a.astype(np.float64) @ weight.dequantized()
    model = matmul_model(weight, transposed=case["transposed"], a=ELEMENT[a.dtype.type], compute="float")
    y = run(model, library, a)
    assert (np.abs(y - expected) <= float_bound(a, weight) + output_rounding(expected, a.dtype)).all()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda w: w.__class__(w.codes, w.scales * np.float16(1.01), w.zero_points, w.bits, w.block),
        lambda w: w.__class__(w.codes, w.scales, w.zero_points * 0, w.bits, w.block),
        lambda w: w.__class__(np.roll(w.codes, 1, axis=0), w.scales, w.zero_points, w.bits, w.block),
        lambda w: w.__class__(w.codes, np.roll(w.scales, 1, axis=0), w.zero_points, w.bits, w.block),
    ],
    ids=["scale x 1.01", "no zero point", "codes one row late", "scales one block late"],
)
@pytest.mark.parametrize("compute", ["int8", "float"])
def test_the_bounds_have_teeth(library, spoil, compute):
    """The twin of the two tests above: each of these mistakes must leave the bound somewhere."""
    rng = np.random.default_rng(5)
    weight = random_weight(rng, 128, 32, bits=4, block=32, zero_points=True)
    a = rng.standard_normal((64, 128)).astype(np.float32)
    bound = (int8_bound if compute == "int8" else float_bound)(a, weight)
    y = run(matmul_model(spoil(weight), compute=compute), library, a)
    wrong = np.abs(y - a.astype(np.float64) @ weight.dequantized()) > bound
    # A 1% scale error hides in int8's worst case; there the L2 test against stock (below) bites.
    if compute == "float" or spoil(weight).scales.sum() == weight.scales.sum():
        assert wrong.any()


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("block", [32, 128])
@pytest.mark.parametrize("zero_points", [False, True])
def test_int8_error_is_at_most_1_02_times_stock_onnxruntime(library, bits, block, zero_points):
    """The promise of `compute="int8"`, on the same file, with and without the library."""
    rng = np.random.default_rng(bits * block)
    weight = random_weight(rng, 512, 256, bits=bits, block=block, zero_points=zero_points)
    a = rng.standard_normal((64, 512)).astype(np.float32)
    expected = a.astype(np.float64) @ weight.dequantized()
    model = matmul_model(weight)
    stock = relative_error(run(model, None, a), expected)
    assert relative_error(run(model, library, a), expected) <= 1.02 * stock
    # Teeth: a scale that is 1% off is seen.
    spoiled = Weight(weight.codes, weight.scales * np.float16(1.01), weight.zero_points, bits, block)
    assert relative_error(run(matmul_model(spoiled), library, a), expected) > 1.02 * stock


@pytest.mark.parametrize("rank", [1, 2, 3, 4])
def test_any_rank_of_a(library, rank):
    rng = np.random.default_rng(rank)
    weight = random_weight(rng, 64, 33)
    a = rng.standard_normal((*range(2, rank + 1), 64)).astype(np.float32)
    y = run(matmul_model(weight, rank=rank), library, a)
    expected = a.astype(np.float64) @ weight.dequantized()
    assert y.shape == expected.shape
    assert relative_error(y, expected) < 0.01


def test_no_rows_give_no_rows(library):
    weight = random_weight(np.random.default_rng(0), 64, 33)
    assert run(matmul_model(weight), library, np.zeros((0, 64), np.float32)).shape == (0, 33)


def test_zero_and_tiny_rows_are_exact(library):
    """An all-zero block has no scale; below 2^-120 a block counts as zero."""
    weight = random_weight(np.random.default_rng(0), 64, 16)
    a = np.zeros((2, 64), np.float32)
    a[1] = 1e-38
    assert (run(matmul_model(weight), library, a) == 0).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_not_hidden(library, bad):
    weight = random_weight(np.random.default_rng(0), 64, 16)
    a = np.ones((2, 64), np.float32)
    a[1, 40] = bad
    y = run(matmul_model(weight), library, a)
    assert np.isfinite(y[0]).all()
    assert np.isnan(y[1]).all()


@pytest.mark.parametrize("m", [1, 3, 8, 100])
def test_results_do_not_depend_on_the_number_of_threads(library, m):
    rng = np.random.default_rng(m)
    model = matmul_model(random_weight(rng, 512, 1040, zero_points=True))
    a = rng.standard_normal((m, 512)).astype(np.float32)
    one, two, four = (run(model, library, a, threads=t) for t in (1, 2, 4))
    assert (one == two).all()
    assert (one == four).all()


def test_a_session_may_override_the_compute_mode(library):
    rng = np.random.default_rng(0)
    weight = random_weight(rng, 256, 64)
    a = rng.standard_normal((4, 256)).astype(np.float32)
    as_float = run(matmul_model(weight, compute="float"), library, a)
    overridden = run(matmul_model(weight, compute="int8"), library, a, config={"onnxq.compute": "float"})
    assert (as_float == overridden).all()
    assert (as_float != run(matmul_model(weight, compute="int8"), library, a)).any()


def test_one_session_may_be_run_by_many_threads(library):
    rng = np.random.default_rng(0)
    shared = session(matmul_model(random_weight(rng, 256, 200)), library, threads=2)
    feeds = [rng.standard_normal((m, 256)).astype(np.float32) for m in (1, 5, 40, 1) * 8]
    alone = [shared.run(None, {"A": a})[0] for a in feeds]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda a: shared.run(None, {"A": a})[0], feeds))
    assert all((x == y).all() for x, y in zip(alone, together, strict=True))
