"""Histogram: counts against a slow loop, and the weighted points that calibrators search over."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnxq_plugins.histogram import _BINS_PER_CHANNEL, _BINS_PER_TENSOR, HistogramCalibrator


def seen(*rows: np.ndarray) -> HistogramCalibrator:
    histogram = HistogramCalibrator()
    for array in rows:
        histogram.update(np.asarray(array, np.float32))
    return histogram


def slow_counts(values: np.ndarray, width: float, bins: int) -> list[int]:
    """One value at a time, in float64, where every quotient by a power of two is exact."""
    counts = [0] * (2 * bins)
    for value in values.astype(np.float64):
        magnitude = int(abs(value) / width)
        counts[bins + magnitude if value >= 0 else bins - 1 - magnitude] += 1
    return counts


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=200))
def test_counts_equal_a_slow_loop(values):
    values = np.array(values, np.float32)
    histogram = seen(values[None])
    edges, counts = histogram.edges_and_counts(0)
    assert counts.tolist() == slow_counts(values, edges[1] - edges[0], _BINS_PER_TENSOR)


@given(st.floats(2.0**-80, 2.0**126, width=32))
def test_the_width_is_the_smallest_power_of_two_that_holds_everything(largest):
    edges, _ = seen(np.array([[largest]])).edges_and_counts(0)
    width = edges[1] - edges[0]
    assert np.log2(width) == np.round(np.log2(width))
    assert largest < edges[-1]
    assert largest >= edges[-1] / 2  # with half the width it would lie outside


def test_channels_have_widths_of_their_own():
    histogram = seen(np.array([[1.0, 2.0], [1000.0, 2000.0]]))
    ends = [histogram.edges_and_counts(channel)[0][-1] for channel in (0, 1)]
    assert ends == [4.0, 2048.0]
    assert histogram.edges_and_counts(1)[1].size == 2 * _BINS_PER_CHANNEL


def test_points_are_the_filled_bins_with_zeros_apart():
    points = seen(np.array([[0, 0, 0, 1, 1, -3, 100]])).points(0)
    assert points.zeros == 3
    assert points.counts.tolist() == [1, 2, 1]
    width = 128 / _BINS_PER_TENSOR
    assert points.values == pytest.approx([-3, 1, 100], abs=width / 2 + 1e-6)
    assert points.values.min() >= -3
    assert points.values.max() <= 100


def test_nothing_is_lost_when_bins_are_coarsened_far():
    """1e-30 and 1e30 need some 200 pairings; every value stays on its side of zero."""
    histogram = seen(np.array([[1e-30, -1e-30, -1e-30]]), np.array([[1e30]]))
    _, counts = histogram.edges_and_counts(0)
    assert counts.sum() == 4
    assert counts[_BINS_PER_TENSOR - 1] == 2
    assert counts[_BINS_PER_TENSOR] == 1
