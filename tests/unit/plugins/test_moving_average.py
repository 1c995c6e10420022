"""moving-average: against the plain recurrence; merging stands for concatenation; order matters."""

import numpy as np
import pytest
from onnxq_plugins.moving_average import MovingAverage

from onnxq.scheme import Scheme

SCHEME = Scheme(8, False, "per_tensor")


def watched(batches, momentum=0.9) -> MovingAverage:
    average = MovingAverage(momentum)
    for batch in batches:
        average.update(batch)
    return average


def recurrence(batches, momentum=0.9) -> tuple[np.ndarray, np.ndarray]:
    low, high = batches[0].min(axis=1).astype(np.float64), batches[0].max(axis=1).astype(np.float64)
    for batch in batches[1:]:
        low = momentum * low + (1 - momentum) * batch.min(axis=1)
        high = momentum * high + (1 - momentum) * batch.max(axis=1)
    return low, high


def some_batches(count: int = 6) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(0, 1 + index, (2, 10 + index)).astype(np.float32) for index in range(count)]


@pytest.mark.parametrize("momentum", [0, 0.5, 0.99])
def test_equals_the_recurrence(momentum):
    batches = some_batches()
    np.testing.assert_allclose(watched(batches, momentum).range(SCHEME), recurrence(batches, momentum), rtol=1e-6)


def test_merging_is_seeing_the_others_batches_afterwards():
    batches = some_batches()
    first, second = watched(batches[:2]), watched(batches[2:])
    first.merge(second)
    np.testing.assert_allclose(first.range(SCHEME), recurrence(batches), rtol=1e-6)


def test_the_other_order_gives_something_else():
    """Twin of the above, and the reason why it is not called mergeable."""
    batches = some_batches()
    second = watched(batches[2:])
    second.merge(watched(batches[:2]))
    assert not np.allclose(second.range(SCHEME), recurrence(batches), rtol=1e-2)


@pytest.mark.parametrize("momentum", [1, -0.1, "high", True])
def test_impossible_momentum(momentum):
    with pytest.raises(ValueError, match="is not at least 0 and below 1"):
        MovingAverage(momentum)
