"""entropy: the divergence against a slow loop, and what the search makes of outliers."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnxq_plugins.entropy import Entropy, _divergence
from onnxq_plugins.histogram import Points

from onnxq.affine import encode, scales_covering
from onnxq.scheme import Scheme

SCHEME = Scheme(4, False, "per_tensor")


def slow_divergence(points: Points, low: float, high: float, *, keep_clipped: bool = True) -> float:
    """One point at a time, as the module's docstring says it."""
    inside = [i for i, value in enumerate(points.values) if low <= value <= high]
    p = {i: points.counts[i] for i in inside}
    if keep_clipped:
        p[inside[0]] += sum(points.counts[: inside[0]])
        p[inside[-1]] += sum(points.counts[inside[-1] + 1 :])
    scale, zero_point = scales_covering(np.float32([low]), np.float32([high]), SCHEME, scale_dtype=np.float32)
    code = {i: float(encode(points.values[i : i + 1], scale, zero_point, SCHEME)[0]) for i in inside}
    q = {}
    for i in inside:
        same = [j for j in inside if code[j] == code[i]]
        q[i] = sum(points.counts[j] for j in same) / len(same)
    all_p, all_q = sum(p.values()), sum(q.values())
    return sum(p[i] / all_p * math.log(p[i] / all_p / (q[i] / all_q)) for i in inside)


def some_points(seed: int) -> Points:
    rng = np.random.default_rng(seed)
    values = np.unique(rng.normal(0, 2, 80).astype(np.float32))
    return Points(values, rng.integers(1, 50, values.size).astype(np.float64), zeros=5)


@given(st.integers(0, 10**6), st.floats(0.3, 1), st.floats(0.3, 1))
def test_divergence_equals_a_slow_loop(seed, below, above):
    points = some_points(seed)
    low, high = points.values[0] * np.float32(below), points.values[-1] * np.float32(above)
    assert _divergence(points, low, high, SCHEME) == pytest.approx(slow_divergence(points, low, high), abs=1e-9)


def test_the_loop_would_notice_forgotten_outliers():
    """Its twin: without the clipped counts in P the two differ."""
    points = some_points(0)
    low, high = points.values[0] / 2, points.values[-1] / 2
    wrong = slow_divergence(points, low, high, keep_clipped=False)
    assert _divergence(points, low, high, SCHEME) != pytest.approx(wrong, abs=1e-3)


def test_a_lone_outlier_is_clipped_and_the_bulk_kept():
    rng = np.random.default_rng(0)
    entropy = Entropy()
    entropy.update(np.append(rng.standard_normal(20000), 50).astype(np.float32)[None])
    low, high = entropy.range(Scheme(8, False, "per_tensor"))
    assert -6 < low[0] < -2
    assert 2 < high[0] < 8


def test_a_uniform_distribution_is_kept_whole():
    entropy = Entropy()
    entropy.update(np.linspace(-1, 1, 20001, dtype=np.float32)[None])
    low, high = entropy.range(Scheme(8, False, "per_tensor"))
    assert low[0] == pytest.approx(-1, abs=0.05)
    assert high[0] == pytest.approx(1, abs=0.05)
