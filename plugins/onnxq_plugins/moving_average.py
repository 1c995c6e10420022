"""moving-average: exponential moving averages of each batch's minimum and maximum.

The one calibrator whose result depends on the order of the batches and on how they are cut, by its definition:
average <- momentum * average + (1 - momentum) * new, beginning with the first batch. Merging stands for seeing the
other's batches after one's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from onnxq.affine import FloatArray
from onnxq.plugin.contracts import Calibrator
from onnxq.plugin.hookspecs import hookimpl
from onnxq.scheme import NumberFormat

__all__ = ["MovingAverage", "onnxq_calibrators"]


class MovingAverage:
    """The average is kept as (1 - m) sum_i m^(n-i) x_i, with m^n x_1 added when asked: that form can be merged.

    Args:
        momentum: share that the past keeps at each batch, at least 0 and below 1.
    """

    name = "moving-average"

    def __init__(self, momentum: float = 0.9) -> None:
        if isinstance(momentum, (bool, str)) or not 0 <= momentum < 1:
            raise ValueError(f"momentum={momentum} is not at least 0 and below 1")
        self._momentum = float(momentum)
        self._batches = 0
        self._first: npt.NDArray[np.float64] | None = None  # [2, channels]: low and high of the first batch
        self._sum: npt.NDArray[np.float64] | None = None  # [2, channels]

    def update(self, rows: FloatArray) -> None:
        """See one batch, float32 [channels, values]; an empty one does not count."""
        if rows.shape[1]:
            seen = np.stack([rows.min(axis=1), rows.max(axis=1)]).astype(np.float64)
            self._append(seen, (1 - self._momentum) * seen, 1)

    def merge(self, other: Self) -> None:
        """See the other's batches after one's own."""
        if other._first is not None and other._sum is not None:
            self._append(other._first, other._sum, other._batches)

    def range(self, scheme: NumberFormat) -> tuple[FloatArray, FloatArray]:
        """The two averages, float32 [channels], whatever the scheme."""
        assert self._first is not None
        assert self._sum is not None
        low, high = (self._sum + self._momentum**self._batches * self._first).astype(np.float32)
        return low, high

    def state(self) -> Mapping[str, npt.NDArray[Any]]:
        """First batch, weighted sum and number of batches; nothing before the first value."""
        if self._first is None or self._sum is None:
            return {}
        return {"first": self._first, "sum": self._sum, "batches": np.array(self._batches)}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Become what `state` describes."""
        if state:
            self._first, self._sum = state["first"], state["sum"]
            self._batches = int(state["batches"])

    def _append(self, first: npt.NDArray[np.float64], weighted: npt.NDArray[np.float64], batches: int) -> None:
        self._first = first if self._first is None else self._first
        self._sum = weighted if self._sum is None else self._momentum**batches * self._sum + weighted
        self._batches += batches


@hookimpl
def onnxq_calibrators() -> Sequence[type[Calibrator]]:
    """Provide moving-average."""
    return [MovingAverage]
