"""mse: about as good as the best range of a brute-force search on the raw values."""

import itertools

import numpy as np
import pytest
from onnxq_plugins.minmax import MinMax
from onnxq_plugins.mse_range import LeastSquaresRange

from onnxq.affine import encode, scales_covering
from onnxq.scheme import Scheme

SCHEMES = [Scheme(8, False, "per_tensor"), Scheme(8, True, "per_tensor"), Scheme(4, False, "per_tensor")]


def squared_error(values: np.ndarray, low: float, high: float, scheme: Scheme) -> float:
    scale, zero_point = scales_covering(np.float32([low]), np.float32([high]), scheme, scale_dtype=np.float32)
    codes = encode(values, scale, zero_point, scheme)
    restored = (codes if zero_point is None else codes - zero_point) * scale
    return float(((restored - values).astype(np.float64) ** 2).sum())


def brute_force(values: np.ndarray, scheme: Scheme) -> float:
    """Least error over a grid of both ends."""
    shares = np.geomspace(0.02, 1, 60)
    low, high = min(values.min(), 0), max(values.max(), 0)
    return min(squared_error(values, low * a, high * b, scheme) for a, b in itertools.product(shares, shares))


def error_of(calibrator, values: np.ndarray, scheme: Scheme) -> float:
    calibrator.update(values[None])
    low, high = calibrator.range(scheme)
    return squared_error(values, low[0], high[0], scheme)


def distributions() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    normal = rng.standard_normal(3000)
    return {
        "normal": normal,
        "outlier": np.append(normal, 40.0),
        "relu": np.maximum(normal, 0),
        "skewed": np.exp(1.5 * normal),
        "negative": -np.abs(normal) - 3,
    }


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
@pytest.mark.parametrize("name", distributions())
def test_within_five_percent_of_brute_force(name, scheme):
    values = distributions()[name].astype(np.float32)
    assert error_of(LeastSquaresRange(), values, scheme) <= 1.05 * brute_force(values, scheme)


def test_the_bound_is_missed_without_a_search():
    """Its twin: the full range, which one outlier stretches, must fail."""
    values = distributions()["outlier"].astype(np.float32)
    assert error_of(MinMax(), values, SCHEMES[2]) > 1.05 * brute_force(values, SCHEMES[2])


def test_channels_are_searched_apart():
    rng = np.random.default_rng(0)
    rows = np.stack([rng.standard_normal(500), 100 * rng.standard_normal(500)]).astype(np.float32)
    mse = LeastSquaresRange()
    mse.update(rows)
    low, high = mse.range(SCHEMES[0])
    assert np.all(np.abs([low[1] / low[0], high[1] / high[0]]) > 50)
