"""minmax, percentile, mse and entropy give the same bits in any order, any chunking and any merge tree."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnxq_plugins.entropy import Entropy
from onnxq_plugins.minmax import MinMax
from onnxq_plugins.moving_average import MovingAverage
from onnxq_plugins.mse_range import LeastSquaresRange
from onnxq_plugins.percentile import Percentile

from onnxq.scheme import Scheme

MERGEABLE = (MinMax, Percentile, LeastSquaresRange, Entropy)
SCHEME = Scheme(8, False, "per_tensor")

# Float32 of any size whose span float32 can still hold, and floats of one size, which collide in bins far more often.
ANY = st.floats(-(2.0**126), 2.0**126, width=32)
SMALL_SET = st.sampled_from([0.0, -0.0, 1.0, -1.0, 1.5, -2.0, 4096.0, -4096.0, 1e-45, -1e-45, 8e37, -8e37, 0.1])
VALUES = st.lists(st.one_of(ANY, SMALL_SET), min_size=1, max_size=60)


def watched(calibrator, chunks: Sequence[np.ndarray]):
    """One instance that has seen all chunks."""
    instance = calibrator()
    for chunk in chunks:
        instance.update(chunk)
    return instance


def copied(instance):
    """The same, by way of its saved state."""
    twin = type(instance)()
    twin.restore({key: array.copy() for key, array in instance.state().items()})
    return twin


def merged(instances: list, draw) -> object:
    """All instances merged in a random tree."""
    instances = list(instances)
    while len(instances) > 1:
        first = instances.pop(draw(st.integers(0, len(instances) - 1)))
        second = instances.pop(draw(st.integers(0, len(instances) - 1)))
        together = copied(first)
        together.merge(second)
        instances.append(together)
    return instances[0]


def bits(instance) -> dict[str, bytes]:
    """State and range, byte for byte."""
    low, high = instance.range(SCHEME)
    state = {key: np.asarray(array).tobytes() for key, array in instance.state().items()}
    return {**state, "low of range": low.tobytes(), "high of range": high.tobytes()}


def check_order_does_not_matter(calibrator, rows: np.ndarray, data) -> None:
    """rows [channels, values], shuffled, cut anywhere and merged in any tree against seen at once."""
    order = np.array(data.draw(st.permutations(range(rows.shape[1]))))
    cuts = sorted(data.draw(st.lists(st.integers(0, rows.shape[1]), max_size=4)))
    chunks = np.split(rows[:, order], cuts, axis=1)  # some are empty
    tree = merged([watched(calibrator, [chunk]) for chunk in chunks], data.draw)
    at_once = watched(calibrator, [rows])
    assert bits(tree) == bits(at_once)
    assert bits(watched(calibrator, chunks)) == bits(at_once)


@pytest.mark.parametrize("calibrator", MERGEABLE)
@given(values=VALUES, channels=st.integers(1, 3), data=st.data())
def test_order_chunks_and_merge_tree_change_no_bit(calibrator, values, channels, data):
    rows = np.array([np.roll(values, shift) * 0.5**shift for shift in range(channels)], np.float32)
    check_order_does_not_matter(calibrator, rows, data)


def test_the_check_finds_what_depends_on_the_order():
    """Its twin: a moving average must fail it."""

    @given(values=VALUES, data=st.data())
    def check(values, data):
        check_order_does_not_matter(MovingAverage, np.array([values], np.float32), data)

    with pytest.raises(AssertionError):
        check()


@pytest.mark.parametrize("calibrator", [*MERGEABLE, MovingAverage])
def test_what_comes_back_from_a_saved_state_goes_on_like_the_original(calibrator):
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((2, 3, 50)).astype(np.float32)
    instance = watched(calibrator, [first])
    restored = copied(instance)
    instance.update(second)
    restored.update(second)
    assert bits(instance) == bits(restored)


@pytest.mark.parametrize("calibrator", [*MERGEABLE, MovingAverage])
def test_merging_leaves_the_other_as_it_was(calibrator):
    rng = np.random.default_rng(0)
    instance, other = (watched(calibrator, [rng.standard_normal((2, 9)).astype(np.float32)]) for _ in range(2))
    before = bits(other)
    instance.merge(other)
    instance.update(np.full((2, 1), 100, np.float32))
    assert bits(other) == before


@pytest.mark.parametrize("calibrator", [*MERGEABLE, MovingAverage])
def test_empty_batches_change_nothing(calibrator):
    rows = np.array([[1, 2, -3]], np.float32)
    instance = watched(calibrator, [np.empty((1, 0), np.float32), rows, np.empty((1, 0), np.float32)])
    instance.merge(calibrator())
    assert bits(instance) == bits(watched(calibrator, [rows]))


@pytest.mark.parametrize("calibrator", [*MERGEABLE, MovingAverage])
@pytest.mark.parametrize("symmetric", [True, False])
def test_zeros_alone_give_an_empty_range(calibrator, symmetric):
    low, high = watched(calibrator, [np.zeros((2, 5), np.float32)]).range(Scheme(8, symmetric, "per_tensor"))
    assert low.tolist() == [0, 0]
    assert high.tolist() == [0, 0]
