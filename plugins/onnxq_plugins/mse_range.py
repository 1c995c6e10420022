"""mse: the range whose rounding and clipping, together, lose least squared error over everything seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxq.affine import FloatArray, encode, scales_covering
from onnxq.plugin.contracts import Calibrator
from onnxq.plugin.hookspecs import hookimpl
from onnxq.scheme import NumberFormat
from onnxq_plugins.histogram import HistogramCalibrator, Points
from onnxq_plugins.range_search import search_range

__all__ = ["LeastSquaresRange", "onnxq_calibrators"]


class LeastSquaresRange(HistogramCalibrator):
    """Clips outliers where the finer step for the rest is worth it; bit-identical in any order."""

    name = "mse"

    def range(self, scheme: NumberFormat) -> tuple[FloatArray, FloatArray]:
        """Low and high, float32 [channels]."""
        found = [self._search(channel, scheme) for channel in range(self.channels)]
        low, high = np.array(found, np.float32).T
        return low, high

    def _search(self, channel: int, scheme: NumberFormat) -> tuple[np.float32, np.float32]:
        points = self.points(channel)
        low, high = self.extremes(channel)
        return search_range(low, high, lambda lows, highs: _squared_error(points, lows, highs, scheme))


def _squared_error(points: Points, low: FloatArray, high: FloatArray, scheme: NumberFormat) -> FloatArray:
    """Sum of squared errors [candidates] when the points are quantized over each [low, high], in squares of the
    largest value, so that none overflows."""
    scale, zero_point = scales_covering(low, high, scheme, scale_dtype=np.float32)
    zero_point = None if zero_point is None else zero_point[:, None]
    error = encode(points.values, scale[:, None], zero_point, scheme)  # [candidates, points]
    if zero_point is not None:
        error -= zero_point
    error *= scale[:, None]
    error -= points.values
    error /= np.maximum(np.abs(points.values).max(initial=0), np.finfo(np.float32).tiny)
    error *= error
    return np.asarray(error.astype(np.float64) @ points.counts)


@hookimpl
def onnxq_calibrators() -> Sequence[type[Calibrator]]:
    """Provide mse."""
    return [LeastSquaresRange]
