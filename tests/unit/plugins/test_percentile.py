"""percentile: no more than the given share is cut off, and hardly less."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnxq_plugins.percentile import Percentile

from onnxq.scheme import Scheme

SCHEME = Scheme(8, False, "per_tensor")


def found(values: np.ndarray, **parameters: float) -> tuple[float, float]:
    percentile = Percentile(**parameters)
    percentile.update(np.asarray(values, np.float32)[None])
    low, high = percentile.range(SCHEME)
    return float(low[0]), float(high[0])


def check_share(values: np.ndarray, bounds: tuple[float, float], below: float, above: float) -> None:
    """Not more than the shares lie outside, and one bin (at most 1/2048 of the largest) further in, more would."""
    low, high = bounds
    step = np.abs(values).max() / 2048
    assert (values < low).mean() <= below
    assert (values > high).mean() <= above
    assert (values <= low + step).mean() > below
    assert (values >= high - step).mean() > above


@given(st.integers(0, 10**6), st.sampled_from([50.0, 90.0, 99.0, 99.9, 100.0]))
def test_share_on_either_side(seed, percent):
    rng = np.random.default_rng(seed)
    values = (rng.standard_normal(2000) ** 3 + rng.normal()).astype(np.float32)
    cut = (100 - percent) / 200
    check_share(values, found(values, percent=percent), cut, cut)


def test_the_check_tells_percentiles_apart():
    """Its twin: the range of another percentile must fail."""
    values = np.random.default_rng(0).standard_normal(2000).astype(np.float32)
    for wrong in (98.0, 99.8):
        with pytest.raises(AssertionError):
            check_share(values, found(values, percent=wrong), 0.005, 0.005)


def test_sides_set_apart():
    values = np.arange(1, 1001, dtype=np.float32)
    check_share(values, found(values, low=10, high=70), 0.1, 0.3)


def test_all_of_it_is_exactly_the_extremes():
    assert found(np.array([-1.2345, 3.3, 0.1]), percent=100) == (np.float32(-1.2345), np.float32(3.3))


def test_a_relu_output_keeps_zero_as_its_low_end():
    values = np.maximum(np.random.default_rng(0).standard_normal(5000), 0)
    low, high = found(values, percent=99)
    assert low == 0
    assert high < values.max()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"percent": 101}, "percent=101 is not between 0 and 100"),
        ({"percent": "most"}, "percent=most is not between"),
        ({"low": -1}, "low=-1 is not between"),
        ({"low": 60, "high": 40}, "nothing would be kept"),
        ({"percent": 0}, "nothing would be kept"),
    ],
)
def test_impossible_parameters(parameters, message):
    with pytest.raises(ValueError, match=message):
        Percentile(**parameters)
