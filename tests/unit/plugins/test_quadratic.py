"""The two moves under the quadratic output error: each ends where no move of its kind gains, and none ever loses."""

from dataclasses import replace

import numpy as np
import pytest
from onnxq_plugins.mse import LeastSquares
from onnxq_plugins.quadratic import best_codes, best_scales, better, output_errors, polished

from onnxq.affine import QuantizedWeight, dequantize
from onnxq.scheme import Scheme

SCHEMES = [
    Scheme(bits=3, symmetric=True, block_size=32),
    Scheme(bits=4, symmetric=False, block_size=32),
    Scheme(bits=4, symmetric=True, granularity="per_axis"),
]


@pytest.fixture(scope="module")
def weight() -> np.ndarray:
    return np.random.default_rng(5).standard_normal((150, 12)).astype(np.float32)


@pytest.fixture(scope="module")
def gram() -> np.ndarray:
    """Of correlated inputs, one of which never fires; float64 [150, 150]: more rows than are gathered at a time."""
    rng = np.random.default_rng(6)
    inputs = rng.standard_normal((400, 150)) @ rng.standard_normal((150, 150))
    inputs[:, 7] = 0
    return inputs.T @ inputs / 400


def start_of(weight: np.ndarray, scheme: Scheme) -> QuantizedWeight:
    return LeastSquares().quantize(weight, scheme, None)


def settled(weight: np.ndarray, quantized: QuantizedWeight, gram: np.ndarray) -> QuantizedWeight:
    """Sweeps until no code moves."""
    order, single = np.arange(len(weight)), gram.astype(np.float32)
    for _ in range(100):
        moved = best_codes(weight, quantized, single, order)
        if (moved.codes == quantized.codes).all():
            return quantized
        quantized = moved
    raise AssertionError("never settles")


def gains(weight: np.ndarray, quantized: QuantizedWeight, gram: np.ndarray) -> int:
    """How many of the codes could be moved by one so that the error of their column falls."""
    before, count = output_errors(weight, quantized, gram), 0
    for row in range(len(weight)):
        for step in (-1, 1):
            codes = quantized.codes.astype(int)
            codes[row] = np.clip(codes[row] + step, quantized.scheme.qmin, quantized.scheme.qmax)
            moved = replace(quantized, codes=codes.astype(quantized.codes.dtype))
            count += int((output_errors(weight, moved, gram) < before * (1 - 1e-5)).sum())
    return count


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_codes_settle_where_no_single_step_gains(weight: np.ndarray, gram: np.ndarray, scheme: Scheme) -> None:
    start = start_of(weight, scheme)
    assert gains(weight, start, gram) > 100  # the twin: plain rounding is not there yet
    end = settled(weight, start, gram)
    assert gains(weight, end, gram) == 0
    assert end.codes.min() >= scheme.qmin
    assert end.codes.max() <= scheme.qmax
    assert (end.codes[7] == start.codes[7]).all()  # never fired: no reason to move


def test_one_sweep_is_the_slow_loop(weight: np.ndarray, gram: np.ndarray) -> None:
    """Row by row in the given order, each by a gradient computed afresh from everything before; two sweeps."""
    scheme = SCHEMES[1]
    start, order = start_of(weight, scheme), np.random.default_rng(0).permutation(150)
    slow = start
    for row in [*order, *order]:
        if gram[row, row] == 0:
            continue
        scale = start.scales[row // 32]
        gradient = gram[row] @ (weight - dequantize(slow)).astype(np.float64)
        codes = slow.codes.copy()
        codes[row] = np.clip(np.rint(codes[row] + gradient / gram[row, row] / scale), 0, 15)
        slow = replace(slow, codes=codes)
    got = best_codes(weight, start, gram.astype(np.float32), order)
    assert (got.codes == slow.codes).mean() > 0.99  # float32 may tip a tie, and what follows from it
    assert (got.codes == best_codes(weight, start, gram.astype(np.float32), order[::-1]).codes).mean() < 0.99


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_scales_are_the_least_squares_solution(weight: np.ndarray, gram: np.ndarray, scheme: Scheme) -> None:
    """Against numpy's lstsq on H = L L^T, column by column."""
    start = start_of(weight, scheme)
    got = best_scales(weight, start, gram.astype(np.float32))
    root = np.linalg.cholesky(gram + 1e-9 * np.eye(150)).T
    centred = dequantize(replace(start, scales=np.ones_like(start.scales))).astype(np.float64)
    groups = len(start.scales)
    for column in range(weight.shape[1]):
        blocks = np.zeros((150, groups))
        size = scheme.block_size or 150
        blocks[np.arange(150), np.arange(150) // size] = centred[:, column]
        expected = np.linalg.lstsq(root @ blocks, root @ weight[:, column], rcond=None)[0]
        assert np.allclose(got.scales[:, column], expected, rtol=2e-3)  # float16: 2^-11, the ridge and float32 sums
        assert not np.allclose(1.01 * got.scales[:, column], expected, rtol=2e-3)
    assert (got.scales == got.scales.astype(np.float16)).all()
    assert (output_errors(weight, got, gram) < output_errors(weight, start, gram)).all()


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_polishing_lowers_the_error_of_every_column(weight: np.ndarray, gram: np.ndarray, scheme: Scheme) -> None:
    start = start_of(weight, scheme)
    before, after = (output_errors(weight, each, gram) for each in (start, polished(weight, start, gram)))
    assert (after < 0.7 * before).all()
    again = output_errors(weight, polished(weight, polished(weight, start, gram), gram), gram)
    assert (again <= after).all()


def test_scales_of_a_whole_tensor_stay(weight: np.ndarray, gram: np.ndarray) -> None:
    start = start_of(weight, Scheme(bits=8, symmetric=True, granularity="per_tensor"))
    assert polished(weight, start, gram) is start


def test_better_takes_each_column_from_the_one_with_less_error(weight: np.ndarray, gram: np.ndarray) -> None:
    left = start_of(weight, SCHEMES[0])
    worse = left.scales.copy()
    worse[:, ::2] *= 2
    worse_left = replace(left, scales=worse)
    right = replace(left, scales=np.where(np.arange(12) % 2, left.scales * 2, left.scales))
    chosen = better(weight, (worse_left, right), gram)
    assert (chosen.scales == left.scales).all()
    assert (output_errors(weight, chosen, gram) == output_errors(weight, left, gram)).all()


def test_blocks_that_no_input_reaches_keep_their_scales(weight: np.ndarray) -> None:
    gram = np.zeros((150, 150))
    gram[:20, :20] = np.eye(20)
    start = start_of(weight, SCHEMES[0])
    end = polished(weight, start, gram)
    assert (end.scales[1:] == start.scales[1:]).all()
    assert (end.codes[20:] == start.codes[20:]).all()
