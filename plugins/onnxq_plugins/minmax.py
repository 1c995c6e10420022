"""minmax: the smallest and the largest value seen. Nothing is ever clipped; one outlier decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from onnxq.affine import FloatArray
from onnxq.plugin.contracts import Calibrator
from onnxq.plugin.hookspecs import hookimpl
from onnxq.scheme import NumberFormat

__all__ = ["MinMax", "onnxq_calibrators"]


class MinMax:
    """Running minimum and maximum of each channel: the same bits in any order, chunking and merge tree."""

    name = "minmax"

    def __init__(self) -> None:
        self._low: FloatArray | None = None  # [channels]
        self._high: FloatArray | None = None

    def update(self, rows: FloatArray) -> None:
        """See float32 [channels, values]."""
        if rows.shape[1]:
            self._widen(rows.min(axis=1), rows.max(axis=1))

    def merge(self, other: Self) -> None:
        """Take in what another instance saw."""
        if other._low is not None and other._high is not None:
            self._widen(other._low, other._high)

    def range(self, scheme: NumberFormat) -> tuple[FloatArray, FloatArray]:
        """The whole range, whatever the scheme."""
        assert self._low is not None
        assert self._high is not None
        return self._low, self._high

    def state(self) -> Mapping[str, npt.NDArray[Any]]:
        """`low` and `high`, float32 [channels]; nothing before the first value."""
        return {} if self._low is None or self._high is None else {"low": self._low, "high": self._high}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Become what `state` describes."""
        self._low, self._high = state.get("low"), state.get("high")

    def _widen(self, low: FloatArray, high: FloatArray) -> None:
        low, high = low + np.float32(0), high + np.float32(0)  # -0.0 becomes 0.0: minimum() may return either
        self._low = low if self._low is None else np.minimum(self._low, low)
        self._high = high if self._high is None else np.maximum(self._high, high)


@hookimpl
def onnxq_calibrators() -> Sequence[type[Calibrator]]:
    """Provide minmax."""
    return [MinMax]
