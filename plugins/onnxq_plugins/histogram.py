"""Histogram: counts of values in bins that refine nobody and forget nothing, so that any merge order agrees.

Bin widths are powers of two, 2^e, and edges are multiples of the width. A value x lies in bin trunc(|x| / 2^e) of
its sign: exact in float32, since dividing by a power of two is. When a larger value needs wider bins, bins 2i and
2i + 1 become bin i. As trunc(trunc(y) / 2) = trunc(y / 2), counting with narrow bins and pairing later gives the very
counts that wide bins would have given at once; and e depends on the largest |x| only. Hence the same values give the
same bits in any order, in any chunks, in any merge tree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from onnxq.affine import FloatArray

__all__ = ["HistogramCalibrator", "Points"]

_BINS_PER_TENSOR, _BINS_PER_CHANNEL = 4096, 512
"""Bins on each side of zero: at least 2048 (256) of them are used by the side with the larger values, 8 (1) or more
to a step of 8-bit codes. Per channel there may be thousands of histograms, so they are smaller."""

_NARROWEST = -100
"""Widths stay at or above 2^-100, whose inverse float32 holds; smaller values all lie in the bins next to zero."""

_CHUNK = 1 << 16
"""Values binned at a time: the temporaries stay in a core's L2 cache."""

_Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Points:
    """One channel's histogram as weighted points, for searching ranges.

    Attributes:
        values: float32 [points], ascending: the middle of each bin that is not empty, within what was really seen.
        counts: float64 [points].
        zeros: how many values were exactly 0; they are in no bin here, and every quantization keeps them exact.
    """

    values: FloatArray
    counts: npt.NDArray[np.float64]
    zeros: int


class HistogramCalibrator:
    """What calibrators that look at the whole distribution share; they add `range`."""

    def __init__(self) -> None:
        self._counts: _Counts | None = None  # [channels, 2 * bins], bins of negative values first, downwards
        self._zeros: _Counts = np.zeros(0, np.int64)  # [channels], part of the first bin above zero
        self._exponent: npt.NDArray[np.int32] = np.zeros(0, np.int32)  # [channels]
        self._low: FloatArray = np.zeros(0, np.float32)
        self._high: FloatArray = np.zeros(0, np.float32)

    def update(self, rows: FloatArray) -> None:
        """See float32 [channels, values]."""
        if not rows.shape[1]:
            return
        low, high = rows.min(axis=1) + np.float32(0), rows.max(axis=1) + np.float32(0)  # no -0.0
        self._prepare(len(rows))
        self._widen(low, high, _exponents(np.maximum(-low, high), self._bins))
        assert self._counts is not None
        for channel, row in enumerate(rows):
            inverse = np.float32(2.0) ** np.float32(-self._exponent[channel])
            for start in range(0, row.size, _CHUNK):
                part = row[start : start + _CHUNK]
                index = (part * inverse).astype(np.int32)  # truncates towards zero
                index -= part < 0
                index += self._bins
                self._counts[channel] += np.bincount(index, minlength=2 * self._bins)
            self._zeros[channel] += row.size - np.count_nonzero(row)

    def merge(self, other: Self) -> None:
        """Take in what another instance saw."""
        if other._counts is None:
            return
        self._prepare(len(other._counts))
        self._widen(other._low, other._high, other._exponent)
        assert self._counts is not None
        for channel, counts in enumerate(other._counts):
            self._counts[channel] += _coarsened(counts, int(self._exponent[channel] - other._exponent[channel]))
        self._zeros += other._zeros

    def state(self) -> Mapping[str, npt.NDArray[Any]]:
        """Counts, zeros, exponents and the exact extremes, per channel; nothing before the first value."""
        if self._counts is None:
            return {}
        return {
            "counts": self._counts,
            "zeros": self._zeros,
            "exponent": self._exponent,
            "low": self._low,
            "high": self._high,
        }

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Become what `state` describes."""
        if state:
            self._counts, self._zeros = state["counts"].astype(np.int64), state["zeros"].astype(np.int64)
            self._exponent = state["exponent"].astype(np.int32)
            self._low, self._high = state["low"].astype(np.float32), state["high"].astype(np.float32)

    @property
    def channels(self) -> int:
        """How many rows have been seen; 0 before the first value."""
        return 0 if self._counts is None else len(self._counts)

    def extremes(self, channel: int) -> tuple[np.float32, np.float32]:
        """The smallest and the largest value of one channel, exactly."""
        return self._low[channel], self._high[channel]

    def edges_and_counts(self, channel: int) -> tuple[npt.NDArray[np.float64], _Counts]:
        """Edges float64 [2 * bins + 1], ascending, and counts [2 * bins] of one channel (zeros in the bin above 0)."""
        assert self._counts is not None
        edges = np.arange(-self._bins, self._bins + 1) * 2.0 ** float(self._exponent[channel])
        return edges, self._counts[channel]

    def points(self, channel: int) -> Points:
        """One channel's distribution as weighted points."""
        edges, counts = self.edges_and_counts(channel)
        counts = counts.copy()
        counts[self._bins] -= self._zeros[channel]
        kept = counts > 0
        middles = np.clip((edges[:-1] + edges[1:])[kept] / 2, self._low[channel], self._high[channel])
        return Points(middles.astype(np.float32), counts[kept].astype(np.float64), int(self._zeros[channel]))

    @property
    def _bins(self) -> int:
        assert self._counts is not None
        return int(self._counts.shape[1]) // 2

    def _prepare(self, channels: int) -> None:
        if self._counts is not None:
            return
        bins = _BINS_PER_TENSOR if channels == 1 else _BINS_PER_CHANNEL
        self._counts = np.zeros((channels, 2 * bins), np.int64)
        self._zeros = np.zeros(channels, np.int64)
        self._exponent = np.full(channels, _NARROWEST, np.int32)
        self._low = np.full(channels, np.inf, np.float32)
        self._high = np.full(channels, -np.inf, np.float32)

    def _widen(self, low: FloatArray, high: FloatArray, exponent: npt.NDArray[np.int32]) -> None:
        """Let every channel's bins be at least 2^exponent wide, and its extremes take in low and high."""
        assert self._counts is not None
        for channel in np.flatnonzero(exponent > self._exponent):
            self._counts[channel] = _coarsened(
                self._counts[channel], int(exponent[channel]) - int(self._exponent[channel])
            )
        self._exponent = np.maximum(self._exponent, exponent)
        self._low, self._high = np.minimum(self._low, low), np.maximum(self._high, high)


def _exponents(largest: FloatArray, bins: int) -> npt.NDArray[np.int32]:
    """The smallest e with largest < bins * 2^e, per channel, but at least the narrowest."""
    _, exponent = np.frexp(largest)  # largest < 2^exponent
    needed = np.where(largest > 0, exponent - (bins.bit_length() - 1), _NARROWEST)
    return np.maximum(needed, _NARROWEST).astype(np.int32)


def _coarsened(counts: _Counts, steps: int) -> _Counts:
    """Counts [2 * bins] with bins paired `steps` times; the outer half of the result is empty."""
    bins = counts.size // 2
    for _ in range(min(steps, bins.bit_length())):  # by then everything lies in the two bins next to zero
        pairs = counts.reshape(-1, 2).sum(axis=1)
        counts = np.zeros_like(counts)
        counts[bins // 2 : bins // 2 + bins] = pairs
    return counts
