"""percentile: the range that holds a given share of all values seen; the rest, in the two tails, is clipped.

`percentile` keeps 99.99 %, `percentile:99.9` keeps 99.9 %, half of the rest cut off on either side. The sides can be
set apart: `percentile:low=0.1,high=99.99` cuts off 0.1 % below and 0.01 % above.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxq.affine import FloatArray
from onnxq.plugin.contracts import Calibrator
from onnxq.plugin.hookspecs import hookimpl
from onnxq.scheme import NumberFormat
from onnxq_plugins.histogram import HistogramCalibrator

__all__ = ["Percentile", "onnxq_calibrators"]


class Percentile(HistogramCalibrator):
    """Two-sided percentiles of a histogram: bit-identical in any order.

    No more than the given share is cut off: the range ends at a bin's outer edge, at most 1/2048 of the largest value
    beyond the true percentile (1/256 per channel), and never beyond the extremes.

    Args:
        percent: share of the values to keep, in percent.
        low: percentile to begin at, instead of (100 - percent) / 2.
        high: percentile to end at, instead of 100 - (100 - percent) / 2.
    """

    name = "percentile"

    def __init__(self, percent: float = 99.99, *, low: float | None = None, high: float | None = None) -> None:
        super().__init__()
        for what, value in (("percent", percent), ("low", low), ("high", high)):
            if value is not None and (isinstance(value, (bool, str)) or not 0 <= value <= 100):
                raise ValueError(f"{what}={value} is not between 0 and 100")
        self._below = ((100 - percent) / 2 if low is None else low) / 100
        self._above = ((100 - percent) / 2 if high is None else 100 - high) / 100
        if self._below + self._above >= 1:
            raise ValueError("nothing would be kept; percent is the share to keep, low lies below high")

    def range(self, scheme: NumberFormat) -> tuple[FloatArray, FloatArray]:
        """Low and high, float32 [channels], whatever the scheme."""
        found = [self._percentiles(channel) for channel in range(self.channels)]
        low, high = np.array(found, np.float32).T
        return low, high

    def _percentiles(self, channel: int) -> tuple[float, float]:
        edges, counts = self.edges_and_counts(channel)
        total = int(counts.sum())
        first = int(np.argmax(np.cumsum(counts) > self._below * total))
        last = counts.size - 1 - int(np.argmax(np.cumsum(counts[::-1]) > self._above * total))
        smallest, largest = self.extremes(channel)
        return max(edges[first], float(smallest)), min(edges[last + 1], float(largest))


@hookimpl
def onnxq_calibrators() -> Sequence[type[Calibrator]]:
    """Provide percentile."""
    return [Percentile]
