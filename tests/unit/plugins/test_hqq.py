"""hqq: no more sum of |error|^0.7 than mse in any group, integer zero points that move, padding that does not weigh."""

import numpy as np
import pytest
from graphs import ONNX_BITS
from hypothesis import given
from hypothesis import strategies as st
from onnxq_plugins.hqq import HalfQuadratic
from onnxq_plugins.mse import LeastSquares
from onnxq_plugins.rtn import RoundToNearest

from onnxq.affine import QuantizedWeight, dequantize
from onnxq.scheme import Scheme

SCHEMES = st.builds(
    lambda bits, symmetric, block: Scheme(bits, symmetric, *(("blocked", block) if block else ("per_axis", 0))),
    st.sampled_from(ONNX_BITS),
    st.booleans(),
    st.sampled_from((0, 16, 32, 64)),
)


def losses(weight: np.ndarray, quantized: QuantizedWeight, p: float = 0.7) -> np.ndarray:
    """Sum of |error|^p of each group: float64 [groups, N], rows of the weight only."""
    size = quantized.scheme.block_size or len(weight)
    error = np.abs(weight.astype(np.float64) - dequantize(quantized)) ** p
    return np.add.reduceat(error, np.arange(0, len(weight), size), axis=0)


def heavy_tailed(k: int, n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_t(4, (k, n)).astype(np.float32)


@given(SCHEMES, st.integers(1, 150), st.integers(0, 200))
def test_never_worse_than_mse_in_any_group(scheme: Scheme, k: int, seed: int) -> None:
    """Up to float32 sums: an error of 1e-8 that should be zero counts 3e-6 to the power 0.7."""
    weight = heavy_tailed(k, 3, seed)
    ours = losses(weight, HalfQuadratic().quantize(weight, scheme, None))
    mse = losses(weight, LeastSquares().quantize(weight, scheme, None))
    assert (ours <= mse * (1 + 1e-4) + 1e-4 * k).all()


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [3, 4])
def test_it_trades_few_large_errors_for_many_small_ones(bits: int, symmetric: bool) -> None:
    weight, scheme = heavy_tailed(128, 64), Scheme(bits, symmetric, block_size=64)
    ours, rtn, mse = (
        method.quantize(weight, scheme, None) for method in (HalfQuadratic(), RoundToNearest(), LeastSquares())
    )
    assert losses(weight, ours).sum() < 0.97 * losses(weight, rtn).sum()
    assert losses(weight, ours).sum() < 0.995 * losses(weight, mse).sum()
    assert losses(weight, ours, 2).sum() > losses(weight, mse, 2).sum()  # the twin: mse wins by its own measure


def test_zero_points_are_integer_codes_and_move() -> None:
    weight, scheme = heavy_tailed(128, 64), Scheme(4, False, block_size=64)
    ours, mse = (method.quantize(weight, scheme, None) for method in (HalfQuadratic(), LeastSquares()))
    assert ours.zero_points is not None
    assert mse.zero_points is not None
    assert ours.zero_points.dtype == np.uint8
    assert ours.zero_points.max() <= 15
    assert (ours.zero_points != mse.zero_points).mean() > 0.03


def test_one_group_is_the_slow_loop() -> None:
    """The module's two steps in float64, one weight at a time; float16 scales as they are stored."""
    scheme = Scheme(4, False, block_size=32)
    same = 0
    for seed in range(20):
        weight = heavy_tailed(32, 1, seed)
        got, start = (method.quantize(weight, scheme, None) for method in (HalfQuadratic(), LeastSquares()))
        assert start.zero_points is not None
        first = float(start.scales[0, 0]), float(start.zero_points[0, 0])
        scale, zero = slow(weight[:, 0].astype(np.float64), first)
        assert got.zero_points is not None
        same += int(got.zero_points[0, 0] == zero and got.scales[0, 0] == scale)
    assert same >= 18  # float32 may tip a tie


def slow(weight: np.ndarray, first: tuple[float, float]) -> tuple[float, float]:
    """Scale and zero point of a group of 4-bit weights, from mse's on."""
    best, beta = first, 10.0
    best_loss = sum(abs(error) ** 0.7 for error in errors(weight, *first))
    for _ in range(8):
        (scale, zero), targets = best, []
        for value, error in zip(weight, -errors(weight, *best) / scale, strict=True):
            left = max(abs(error) - abs(error) ** -0.3 / beta, 0.0) if error else 0.0
            targets.append(value / scale - np.sign(error) * left)
        for moved in np.clip([zero, zero - 1, zero + 1], 0, 15):
            centred = np.clip(np.rint(targets) + moved, 0, 15) - moved
            fitted = float(np.float16(scale * (centred @ targets) / (centred @ centred)))
            loss = sum(abs(error) ** 0.7 for error in errors(weight, fitted, moved))
            if loss < best_loss:
                best, best_loss = (fitted, float(moved)), loss
        beta *= 1.01
    return best


def errors(weight: np.ndarray, scale: float, zero: float) -> np.ndarray:
    return (np.clip(np.rint(weight / scale) + zero, 0, 15) - zero) * scale - weight


@pytest.mark.parametrize("symmetric", [True, False])
def test_the_padding_of_a_ragged_block_does_not_weigh(symmetric: bool) -> None:
    """The last row is what the block is padded with; whichever it is, the block's scale is the same."""
    weight, scheme = heavy_tailed(36, 50), Scheme(4, symmetric, block_size=32)
    turned = weight.copy()
    turned[32:] = weight[[35, 34, 33, 32]]
    ours, other = (HalfQuadratic().quantize(each, scheme, None) for each in (weight, turned))
    assert (ours.scales == other.scales).mean() > 0.97  # sums in another order may round another way
    padded = np.concatenate([weight, np.repeat(weight[-1:], 28, axis=0)])  # the twin: padding that is real
    assert (HalfQuadratic().quantize(padded, scheme, None).scales[1] == ours.scales[1]).mean() < 0.9
