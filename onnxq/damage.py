"""Damage: how far a tensor of the quantized model is from the float model's, in the usual measures.

Everything is accumulated batch by batch in float64, so memory does not grow with the data and the figures do not
depend on how the data is cut into batches.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Damage", "DamageMeter", "class_like"]

_Array = npt.NDArray[np.float64]

_SUM_TOLERANCE = 1e-3
"""A row of float16 probabilities sums to one within this: its roundings of 2^-11 mostly cancel."""

_LEAST_PROBABILITY = 1e-12
"""Zero has no logarithm."""


_CLASS_NAMES = re.compile(r"logit|prob|score|softmax|label|class", re.IGNORECASE)
_VOCABULARY = 1000
"""An output whose last axis is this long is taken for scores over classes or tokens, whatever its name."""


@dataclass(frozen=True, slots=True)
class Damage:
    """Differences of one tensor over all batches.

    Attributes:
        sqnr_db: 10 log10(sum x^2 / sum (x - y)^2); inf when equal.
        mse: mean of (x - y)^2.
        psnr_db: 10 log10(max |x|^2 / mse); inf when equal.
        cosine: sum x y / sqrt(sum x^2 sum y^2).
        max_abs: largest |x - y|.
        top1: share of rows (last axis) whose largest entry is the same; None unless class-like.
        kl: mean Kullback-Leibler divergence of the rows' distributions, in nats; None unless class-like.
        finite: no NaN or infinity where the float model has none.
    """

    sqnr_db: float
    mse: float
    psnr_db: float
    cosine: float
    max_abs: float
    top1: float | None
    kl: float | None
    finite: bool


class DamageMeter:
    """Accumulates the differences of one tensor.

    Args:
        class_like: rows along the last axis are logits or probabilities; compare their decisions too.
    """

    def __init__(self, *, class_like: bool = False) -> None:
        self._class_like = class_like
        self._count = self._rows = self._agree = 0
        self._signal = self._noise = self._other = self._dot = self._kl = 0.0
        self._peak = self._max_abs = 0.0
        self._finite = True

    def update(self, reference: npt.NDArray[np.generic], quantized: npt.NDArray[np.generic]) -> None:
        """Add one batch; both arrays have the same shape."""
        x, y = reference.astype(np.float64), quantized.astype(np.float64)
        usable = np.isfinite(x)
        self._finite &= bool(np.isfinite(y[usable]).all())
        usable &= np.isfinite(y)
        if not usable.all():
            x, y = np.where(usable, x, 0.0), np.where(usable, y, 0.0)
        difference = x - y
        self._count += int(usable.sum())
        self._signal += float(np.vdot(x, x))
        self._other += float(np.vdot(y, y))
        self._noise += float(np.vdot(difference, difference))
        self._dot += float(np.vdot(x, y))
        if x.size:
            self._peak = max(self._peak, float(np.abs(x).max()))
            self._max_abs = max(self._max_abs, float(np.abs(difference).max()))
        if self._class_like and x.ndim and x.shape[-1]:
            self._compare_rows(x.reshape(-1, x.shape[-1]), y.reshape(-1, x.shape[-1]))

    def result(self) -> Damage:
        """The measures over everything seen so far."""
        mse = self._noise / self._count if self._count else 0.0
        norm = np.sqrt(self._signal * self._other)
        return Damage(
            sqnr_db=_db(self._signal, self._noise),
            mse=mse,
            psnr_db=_db(self._peak**2, mse),
            cosine=float(self._dot / norm) if norm > 0 else float(self._noise == 0.0),
            max_abs=self._max_abs,
            top1=self._agree / self._rows if self._rows else None,
            kl=self._kl / self._rows if self._rows else None,
            finite=self._finite,
        )

    def _compare_rows(self, x: _Array, y: _Array) -> None:
        self._rows += len(x)
        self._agree += int((x.argmax(axis=1) == y.argmax(axis=1)).sum())
        probabilities = (x >= 0).all(axis=1) & (np.abs(x.sum(axis=1) - 1) <= _SUM_TOLERANCE)
        log_p, log_q = _log_distributions(x, probabilities), _log_distributions(y, probabilities)
        self._kl += float((np.exp(log_p) * (log_p - log_q)).sum())


def class_like(name: str, shape: tuple[int, ...]) -> bool:
    """Are the rows of an output of this name and shape scores over classes or tokens?"""
    if not 2 <= len(shape) <= 3 or shape[-1] < 2:
        return False
    return bool(_CLASS_NAMES.search(name)) or shape[-1] >= _VOCABULARY


def _log_distributions(rows: _Array, probabilities: npt.NDArray[np.bool_]) -> _Array:
    """Log of each row's distribution: what the reference's row is, probabilities or logits, the other's is too."""
    logits = np.where(probabilities[:, None], np.log(np.maximum(rows, _LEAST_PROBABILITY)), rows)
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _db(signal: float, noise: float) -> float:
    if noise == 0.0:
        return float("inf")
    return float(10 * np.log10(signal / noise)) if signal > 0 else float("-inf")
