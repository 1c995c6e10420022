"""mse: never worse than rtn in any group, often better, and equal to a slow search over the same candidates."""

import numpy as np
import pytest
from graphs import ONNX_BITS
from hypothesis import given
from hypothesis import strategies as st
from onnxq_plugins.clip_search import FRACTIONS
from onnxq_plugins.mse import LeastSquares
from onnxq_plugins.rtn import RoundToNearest

from onnxq.affine import dequantize, encode, scales_from_range, stored_scale
from onnxq.scheme import Scheme

SCHEMES = st.builds(
    lambda bits, symmetric, block: Scheme(bits, symmetric, *(("blocked", block) if block else ("per_axis", 0))),
    st.sampled_from(ONNX_BITS),
    st.booleans(),
    st.sampled_from((0, 16, 32, 64)),
)


def squared_error(weight: np.ndarray, quantized) -> np.ndarray:
    """Sum of squared errors of each group: float64 [groups, N], rows of the weight only."""
    size = quantized.scheme.block_size or len(weight)
    square = (weight.astype(np.float64) - dequantize(quantized)) ** 2
    return np.add.reduceat(square, np.arange(0, len(weight), size), axis=0)


@given(SCHEMES, st.integers(1, 150), st.integers(0, 200))
def test_never_worse_than_rtn_in_any_group(scheme, k, seed):
    """Ragged ends included: the padding must not weigh. 1e-5: both errors are compared in float32 inside."""
    weight = np.random.default_rng(seed).standard_t(4, (k, 3)).astype(np.float32)
    ours = squared_error(weight, LeastSquares().quantize(weight, scheme, None))
    rtn = squared_error(weight, RoundToNearest().quantize(weight, scheme, None))
    assert (ours <= rtn * (1 + 1e-5) + 1e-12).all()


@pytest.mark.parametrize(("bits", "gain"), [(2, 0.75), (4, 0.95), (8, 0.999)])
@pytest.mark.parametrize("symmetric", [True, False])
def test_it_gains_on_gaussian_weights(bits, symmetric, gain):
    """Teeth for the bound above: returning rtn's answer would not do."""
    weight = np.random.default_rng(0).standard_normal((128, 64)).astype(np.float32)
    scheme = Scheme(bits, symmetric, block_size=128)
    ours = squared_error(weight, LeastSquares().quantize(weight, scheme, None)).sum()
    rtn = squared_error(weight, RoundToNearest().quantize(weight, scheme, None)).sum()
    assert ours < gain * rtn


def slow_search(group: np.ndarray, scheme: Scheme) -> float:
    """Least squared error of one group over all shrunk ranges, then the closed-form scale for the best codes."""
    best = (np.inf, None, None)
    for fraction in FRACTIONS[scheme.bits]:
        low, high = group.min(keepdims=True) * np.float32(fraction), group.max(keepdims=True) * np.float32(fraction)
        scale, zero = scales_from_range(low, high, scheme)
        codes = encode(group, scale, zero, scheme) - (0 if zero is None else zero)
        error = float(((group - codes * scale).astype(np.float64) ** 2).sum())
        if error < best[0]:
            best = (error, codes, zero)
    error, codes, zero = best
    if (square := float((codes**2).sum())) > 0 and (fit := float(group @ codes) / square) > 0:
        scale = stored_scale(np.float32([fit]))
        codes = encode(group, scale, zero, scheme) - (0 if zero is None else zero)
        error = min(error, float(((group - codes * scale).astype(np.float64) ** 2).sum()))
    return error


@pytest.mark.parametrize("bits", ONNX_BITS)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("k", [64, 75])
def test_the_vectorised_search_finds_what_the_slow_one_finds(bits, symmetric, k):
    weight = np.random.default_rng(bits).standard_normal((k, 5)).astype(np.float32)
    scheme = Scheme(bits, symmetric, block_size=32)
    ours = squared_error(weight, LeastSquares().quantize(weight, scheme, None))
    for group, start in enumerate(range(0, k, 32)):
        for column in range(5):
            slow = slow_search(weight[start : start + 32, column], scheme)
            assert ours[group, column] == pytest.approx(slow, rel=1e-4)


@pytest.mark.parametrize("scheme", [Scheme(4, True, "per_tensor"), Scheme(4, False, "per_tensor")], ids=str)
def test_per_tensor(scheme):
    weight = np.random.default_rng(1).standard_normal((30, 7)).astype(np.float32)
    quantized = LeastSquares().quantize(weight, scheme, None)
    assert quantized.scales.shape == (1, 1)
    rtn = RoundToNearest().quantize(weight, scheme, None)
    assert squared_error(weight, quantized).sum() < squared_error(weight, rtn).sum()


def test_columns_are_searched_in_chunks_without_a_seam():
    """More weights than one chunk holds: every column equals the column quantized alone."""
    weight = np.random.default_rng(2).standard_normal((4096, 130)).astype(np.float32)
    scheme = Scheme(4, False, block_size=128)
    whole = LeastSquares().quantize(weight, scheme, None)
    for column in (0, 63, 64, 129):
        alone = LeastSquares().quantize(weight[:, column : column + 1], scheme, None)
        assert (whole.codes[:, column] == alone.codes[:, 0]).all()
        assert (whole.scales[:, column] == alone.scales[:, 0]).all()


def test_zeros_stay_zero():
    for symmetric in (True, False):
        quantized = LeastSquares().quantize(np.zeros((40, 2), np.float32), Scheme(4, symmetric, block_size=32), None)
        assert (dequantize(quantized) == 0).all()
        assert (quantized.scales == 1).all()
