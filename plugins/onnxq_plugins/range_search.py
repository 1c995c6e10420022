"""Search for the range whose loss is smallest, for calibrators that have a loss.

1. Both ends shrink together, in steps of 7 %, down to a fiftieth of the full range.
2. From the best of these, each end moves alone: over the same steps, for outliers on one side; then in finer ones.

The first of equally good candidates wins, and the order is fixed, so equal distributions give equal ranges.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from onnxq.affine import FloatArray

__all__ = ["Loss", "search_range"]

Loss = Callable[[FloatArray, FloatArray], FloatArray]
"""Losses [candidates] of the ranges (low [candidates], high [candidates])."""

_COARSE = np.float32(0.93) ** np.arange(54, dtype=np.float32)  # 1 .. 0.021
_FINE = np.linspace(1.12, 0.7, 22, dtype=np.float32)
"""Around the best so far: a little wider than one coarse step, and well below."""


def search_range(low: np.float32, high: np.float32, loss: Loss) -> tuple[np.float32, np.float32]:
    """The best range within [low, high], which is widened to hold zero first.

    Args:
        low: smallest value seen.
        high: largest.
        loss: vectorised over candidates.
    """
    lowest, highest = np.minimum(low, np.float32(0)), np.maximum(high, np.float32(0))
    if lowest == highest:
        return lowest, highest
    best = _best(lowest * _COARSE, highest * _COARSE, loss)
    for steps in (None, _FINE):
        if highest > 0:
            upper = highest * _COARSE if steps is None else np.minimum(best[1] * steps, highest)
            best = _best(np.full_like(upper, best[0]), upper, loss)
        if lowest < 0:
            lower = lowest * _COARSE if steps is None else np.maximum(best[0] * steps, lowest)
            best = _best(lower, np.full_like(lower, best[1]), loss)
    return best


def _best(low: FloatArray, high: FloatArray, loss: Loss) -> tuple[np.float32, np.float32]:
    index = int(np.argmin(loss(low, high)))
    return low[index], high[index]
