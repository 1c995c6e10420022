"""entropy: the range after which the quantized distribution tells most about the real one.

For each candidate range two distributions over the histogram's points are compared:

- P: the counts, those outside the range added to the outermost points inside (that is what clipping does);
- Q: the counts inside the range, shared out evenly over the points that fall onto the same code.

The loss is the Kullback-Leibler divergence sum P log(P / Q): clipping much makes P differ at the ends, clipping
little makes codes so wide that evening out shows. Exact zeros are left out: every range keeps them exact, and in
what comes from a Relu they would outweigh everything else.

Source: S. Migacz, "8-bit inference with TensorRT", GTC 2017; here over both signs, with zero points.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxq.affine import FloatArray, encode, scales_covering
from onnxq.plugin.contracts import Calibrator
from onnxq.plugin.hookspecs import hookimpl
from onnxq.scheme import NumberFormat
from onnxq_plugins.histogram import HistogramCalibrator, Points
from onnxq_plugins.range_search import search_range

__all__ = ["Entropy", "onnxq_calibrators"]


class Entropy(HistogramCalibrator):
    """Least divergence; bit-identical in any order."""

    name = "entropy"

    def range(self, scheme: NumberFormat) -> tuple[FloatArray, FloatArray]:
        """Low and high, float32 [channels]."""
        found = [self._search(channel, scheme) for channel in range(self.channels)]
        low, high = np.array(found, np.float32).T
        return low, high

    def _search(self, channel: int, scheme: NumberFormat) -> tuple[np.float32, np.float32]:
        points = self.points(channel)
        low, high = self.extremes(channel)

        def loss(lows: FloatArray, highs: FloatArray) -> FloatArray:
            pairs = zip(lows, highs, strict=True)
            return np.array([_divergence(points, low, high, scheme) for low, high in pairs])

        return search_range(low, high, loss)


def _divergence(points: Points, low: np.float32, high: np.float32, scheme: NumberFormat) -> float:
    """KL(P || Q) in nats; infinite when nothing lies inside."""
    first, end = np.searchsorted(points.values, low), np.searchsorted(points.values, high, side="right")
    if first == end:
        return 0.0 if not points.values.size else np.inf
    inside = points.counts[first:end]
    p = inside.copy()
    p[0] += points.counts[:first].sum()
    p[-1] += points.counts[end:].sum()
    scale, zero_point = scales_covering(np.asarray(low), np.asarray(high), scheme, scale_dtype=np.float32)
    codes = encode(points.values[first:end], scale, zero_point, scheme).astype(np.int64) - scheme.qmin
    levels = scheme.qmax - scheme.qmin + 1
    mass, shares = np.bincount(codes, inside, levels), np.bincount(codes, minlength=levels)
    q = (mass / np.maximum(shares, 1))[codes]
    p /= p.sum()
    q /= q.sum()
    return float((p * np.log(p / q)).sum())


@hookimpl
def onnxq_calibrators() -> Sequence[type[Calibrator]]:
    """Provide entropy."""
    return [Entropy]
