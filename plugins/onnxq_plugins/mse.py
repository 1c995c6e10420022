"""mse: per group, the clipped range and the scale whose rounding loses least squared error. No data needed.

1. The range is shrunk in steps; each candidate quantizes the group and is scored by its squared error.
2. With the codes of the best candidate fixed, the scale that minimises the error has a closed form,
   sum(w (q - z)) / sum((q - z)^2); the group is encoded again with it, and kept where that gained.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxq.affine import FloatArray, QuantizedWeight, encode, scales_from_range, stored_scale
from onnxq.plugin.contracts import WeightEvidence, WeightQuantizer
from onnxq.plugin.hookspecs import hookimpl
from onnxq.scheme import Scheme
from onnxq_plugins.grouping import assemble, grouped

__all__ = ["LeastSquares", "onnxq_weight_quantizers"]

_SHRINK = {
    2: np.linspace(1.0, 0.45, 23),
    3: np.linspace(1.0, 0.6, 21),
    4: np.linspace(1.0, 0.7, 16),
    5: np.linspace(1.0, 0.8, 11),
    6: np.linspace(1.0, 0.88, 7),
    8: np.linspace(1.0, 0.94, 4),
}
"""Candidate fractions of the full range by bits: the optimum of a Gaussian group of 32..256 weights lies well
inside (about 0.6 at 2 bits, 0.9 at 4, above 0.97 at 8)."""

_CHUNK = 1 << 18
"""Weights searched at a time: two float32 temporaries of this size stay in a core's L2 cache."""


class LeastSquares:
    """Clip search by squared error, then a closed-form scale."""

    name = "mse"

    def quantize(self, weight: FloatArray, scheme: Scheme, evidence: WeightEvidence | None) -> QuantizedWeight:
        """Quantize [K, N] with no more squared error in any group than rtn has."""
        groups = grouped(weight, scheme)  # [G, S, N]
        count, size, n = groups.shape
        columns = max(1, _CHUNK // (count * size))
        codes = np.empty_like(groups)
        scale = np.empty((count, 1, n), np.float32)
        zero_point = None if scheme.symmetric else np.empty((count, 1, n), np.float32)
        for start in range(0, n, columns):
            part = np.ascontiguousarray(groups[:, :, start : start + columns])
            found = _search(part, scheme)
            codes[:, :, start : start + columns], scale[:, :, start : start + columns] = found[0], found[1]
            if zero_point is not None:
                zero_point[:, :, start : start + columns] = found[2]
        if rest := weight.shape[0] % scheme.block_size if scheme.granularity == "blocked" else 0:
            # the last block alone: the rows that pad it must not weigh in its error
            tail = _search(np.ascontiguousarray(weight[None, -rest:], dtype=np.float32), scheme)
            codes[-1:, :rest], scale[-1:] = tail[0], tail[1]
            if zero_point is not None:
                zero_point[-1:] = tail[2]
        return assemble(codes, scale, zero_point, k=weight.shape[0], scheme=scheme)


_Candidate = tuple[FloatArray, FloatArray, FloatArray | None]


def _search(part: FloatArray, scheme: Scheme) -> _Candidate:
    """Best codes [G, S, n], scales [G, 1, n] and zero points of one chunk."""
    low, high = part.min(axis=1, keepdims=True), part.max(axis=1, keepdims=True)
    best: _Candidate | None = None
    best_error = np.full(low.shape, np.inf, np.float32)
    for fraction in _SHRINK[scheme.bits]:
        scale, zero_point = scales_from_range((low * np.float32(fraction)), (high * np.float32(fraction)), scheme)
        best, best_error = _better(part, (scale, zero_point), scheme, best, best_error)
    assert best is not None
    codes, scale, zero_point = best
    centred = codes if zero_point is None else codes - zero_point
    square = np.einsum("gsn,gsn->gn", centred, centred)[:, None]
    refit = np.einsum("gsn,gsn->gn", part, centred)[:, None] / np.where(square > 0, square, 1)
    refit = stored_scale(np.where((square > 0) & (refit > 0), refit, scale).astype(np.float32), scheme.scale_dtype)
    best, _ = _better(part, (refit, zero_point), scheme, best, best_error)
    return best


def _better(
    part: FloatArray,
    candidate: tuple[FloatArray, FloatArray | None],
    scheme: Scheme,
    best: _Candidate | None,
    best_error: FloatArray,
) -> tuple[_Candidate, FloatArray]:
    """The better of the best so far and a candidate (scale, zero point), group by group."""
    scale, zero_point = candidate
    codes = encode(part, scale, zero_point, scheme)
    difference = (codes if zero_point is None else codes - zero_point) * scale - part
    error = np.einsum("gsn,gsn->gn", difference, difference)[:, None]
    if best is None:
        return (codes, scale, zero_point), error
    wins = error < best_error
    old_codes, old_scale, old_zero_point = best
    chosen_zero = None
    if zero_point is not None and old_zero_point is not None:
        chosen_zero = np.where(wins, zero_point, old_zero_point)
    return (
        (np.where(wins, codes, old_codes), np.where(wins, scale, old_scale), chosen_zero),
        np.where(wins, error, best_error),
    )


@hookimpl
def onnxq_weight_quantizers() -> Sequence[WeightQuantizer]:
    """Provide mse."""
    return [LeastSquares()]
