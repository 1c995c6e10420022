"""rtn against a slow loop over its definition, and its bound: half a scale, and what float16 costs at the ends."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnxq_plugins.rtn import RoundToNearest

from onnxq.affine import QuantizedWeight, dequantize
from onnxq.scheme import BITS, BLOCK_SIZES, Scheme

SCHEMES = st.builds(
    lambda bits, symmetric, block: Scheme(bits, symmetric, *(("blocked", block) if block else ("per_axis", 0))),
    st.sampled_from(BITS),
    st.booleans(),
    st.sampled_from((0, *BLOCK_SIZES)),
)


def random_weight(k: int, n: int, seed: int = 0) -> np.ndarray:
    """Columns of very different sizes, one of zeros, one without negative numbers."""
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((k, n)) * 10.0 ** rng.integers(-4, 2, n)
    weight[:, 0] = 0
    if n > 1:
        weight[:, 1] = np.abs(weight[:, 1])
    return weight.astype(np.float32)


def slow_rtn(weight: np.ndarray, scheme: Scheme) -> QuantizedWeight:
    """Round to nearest, one group and one number at a time."""
    k, n = weight.shape
    size = scheme.block_size if scheme.granularity == "blocked" else k
    starts = range(0, k, size)
    codes = np.zeros((k, n), np.int64)
    scales = np.zeros((len(starts), n), np.float32)
    zero_points = np.zeros((len(starts), n), np.int64)
    for column in range(n):
        for group, start in enumerate(starts):
            rows = weight[start : start + size, column]
            low, high = min(rows.min(), np.float32(0)), max(rows.max(), np.float32(0))
            if scheme.symmetric:
                span = max(high / np.float32(scheme.qmax), low / np.float32(scheme.qmin))
            else:
                span = (high - low) / np.float32(scheme.qmax)
            scale = np.float32(np.float16(span)) if span > 0 else np.float32(1)
            zero = 0 if scheme.symmetric else min(max(round(float(-low / scale)), 0), scheme.qmax)
            scales[group, column], zero_points[group, column] = scale, zero
            for row in range(start, min(start + size, k)):
                q = round(float(weight[row, column] / scale)) + zero
                codes[row, column] = min(max(q, scheme.qmin), scheme.qmax)
    dtype = np.int8 if scheme.symmetric else np.uint8
    zeros = None if scheme.symmetric else zero_points.astype(np.uint8)
    return QuantizedWeight(codes.astype(dtype), scales, zeros, scheme)


@given(SCHEMES, st.integers(1, 80), st.integers(1, 4), st.integers(0, 50))
def test_rtn_is_the_slow_loop_to_the_bit(scheme, k, n, seed):
    weight = random_weight(k, n, seed)
    weight[np.abs(weight) < 1e-2] *= 100  # scales in float16's normal range; smaller ones: test_affine.py
    fast, slow = RoundToNearest().quantize(weight, scheme, None), slow_rtn(weight, scheme)
    assert (fast.scales == slow.scales).all()
    assert (fast.codes == slow.codes).all()
    assert fast.codes.dtype == slow.codes.dtype
    assert (fast.zero_points is None) == scheme.symmetric
    if not scheme.symmetric:
        assert (fast.zero_points == slow.zero_points).all()
    assert fast.scheme == scheme


@given(SCHEMES, st.integers(1, 300), st.integers(0, 50))
def test_the_error_is_at_most_half_a_scale_and_the_float16_overshoot(scheme, k, seed):
    weight = random_weight(k, 3, seed)
    quantized = RoundToNearest().quantize(weight, scheme, None)
    groups = quantized.scales.shape[0]
    scale = np.repeat(quantized.scales, -(-k // groups) if groups == 1 else scheme.block_size, axis=0)[:k]
    bound = scale * (0.5 + (scheme.qmax - scheme.qmin) * 2.0**-11) + 2.0**-24  # see saturation_bound in test_affine
    assert (np.abs(weight - dequantize(quantized)) <= bound * 1.001).all()


@pytest.mark.parametrize("symmetric", [True, False])
def test_per_tensor_shares_one_scale(symmetric):
    weight = random_weight(20, 4)
    quantized = RoundToNearest().quantize(weight, Scheme(8, symmetric, "per_tensor"), None)
    assert quantized.scales.shape == (1, 1)
    assert quantized.codes.shape == weight.shape
    assert np.abs(weight - dequantize(quantized)).max() <= 0.63 * quantized.scales[0, 0]


def test_the_weight_is_not_changed():
    weight = random_weight(40, 3)
    weight.flags.writeable = False
    RoundToNearest().quantize(weight, Scheme(4, False, block_size=32), None)
