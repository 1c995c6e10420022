"""Watcher: stands between one tensor and its calibrator, so that every calibrator sees the same simple thing.

What comes out of onnxruntime has any rank, any float type, may be empty and may hold mask values. What a calibrator
gets is float32 [channels, values], finite.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxq.affine import FloatArray
from onnxq.evidence import Observation, Wish
from onnxq.plugin.contracts import Calibrator
from onnxq.plugin.registry import Plugin

__all__ = ["MASK_FROM", "Watcher"]

MASK_FROM = np.float32(-5000.0)
"""Half of the smallest mask in use (-1e4), so that mask plus score counts as mask for any score up to 5000."""

_NO_CHANNELS_YET = 0


@dataclass(slots=True)
class Watcher:
    """Feeds one tensor to one calibrator, batch by batch.

    Attributes:
        wish: what is watched.
        plugin: the calibrator's plugin.
        calibrator: the instance that is fed.
        masked: the tensor may hold attention-mask values; keep them out.
        problem: why nothing can be said about this tensor; None while all is well.
    """

    wish: Wish
    plugin: Plugin[type[Calibrator]]
    calibrator: Calibrator
    masked: bool
    problem: str | None = None
    channels: int = _NO_CHANNELS_YET
    count: int = 0
    excluded: int = 0
    low: float = float("inf")
    high: float = float("-inf")

    def see(self, array: npt.NDArray[np.generic], batch: int) -> None:
        """Show one batch; after a problem the tensor is no longer watched.

        Raises:
            PluginError: the calibrator raised.
        """
        if self.problem is not None:
            return
        if array.dtype.kind != "f":
            self.problem = f"holds {array.dtype}, not floats"
            return
        rows = self._rows(array)
        if rows is not None and rows.size:
            rows = self._cleaned(rows, batch)
        if rows is None:
            return
        self.channels = rows.shape[0]
        self.count += rows.size
        rows.flags.writeable = False
        with self.plugin.guarded(f"tensor '{self.wish.tensor}', batch {batch}"):
            self.calibrator.update(rows)

    def observation(self) -> Observation:
        """Everything seen; call when `problem` is None after `finish`."""
        return Observation(
            wish=self.wish,
            plugin=self.plugin,
            calibrator=self.calibrator,
            channels=self.channels,
            count=self.count,
            excluded=self.excluded,
            low=self.low,
            high=self.high,
        )

    def finish(self) -> None:
        """No more batches will come."""
        if self.problem is None and not self.count:
            self.problem = "every value was an attention mask" if self.excluded else "was empty in every batch"

    def _rows(self, array: npt.NDArray[np.generic]) -> FloatArray | None:
        """[channels, values], a view where that is possible; None when the axis does not fit."""
        axis = self.wish.axis
        if axis is None:
            rows = array.reshape(1, -1)
        elif not -array.ndim <= axis < array.ndim:
            self.problem = f"has rank {array.ndim}, so no axis {axis} to give ranges per channel"
            return None
        else:
            moved = np.moveaxis(array, axis, 0)
            rows = moved.reshape(moved.shape[0], -1) if moved.size else np.empty((moved.shape[0], 0), array.dtype)
            if self.channels not in (_NO_CHANNELS_YET, rows.shape[0]):
                self.problem = f"has {self.channels} and {rows.shape[0]} channels along axis {axis} in two batches"
                return None
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite and is reported as that
            return np.asarray(rows, dtype=np.float32).view()

    def _cleaned(self, rows: FloatArray, batch: int) -> FloatArray | None:
        """The rows without mask values; None (and a problem) where they are not finite."""
        low, high = rows.min(), rows.max()  # both are NaN if any value is
        if self.masked and low <= MASK_FROM:
            if self.wish.axis is not None:
                self.problem = "holds an attention mask, so it can only be observed per tensor"
                return None
            kept = rows[rows > MASK_FROM][None]
            self.excluded += rows.size - kept.size
            if not kept.size:
                return kept
            rows, low = kept, kept.min()
        if not (np.isfinite(low) and np.isfinite(high)):
            self.problem = f"held {'NaN' if np.isnan(low) else 'infinity'} in batch {batch}"
            return None
        self.low, self.high = min(self.low, float(low)), max(self.high, float(high))
        return rows
