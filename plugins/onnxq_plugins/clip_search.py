"""Clip search: per group, the range and the scale whose rounding loses least (weighted) squared error.

1. The range is shrunk in steps; each candidate quantizes the group and is scored by its error.
2. With the codes of the best candidate fixed, the scale that minimises the error has a closed form,
   sum(h w (q - z)) / sum(h (q - z)^2); the group is encoded again with it, and kept where that gained.

h is the importance of an input channel: what its errors weigh. Rows that only pad a ragged last block weigh nothing.
"""

from __future__ import annotations

import numpy as np

from onnxq.affine import FloatArray, encode, scales_from_range, stored_scale
from onnxq.scheme import Scheme
from onnxq_plugins.grouping import grouped

__all__ = ["FRACTIONS", "Found", "clip_search"]

FRACTIONS = {
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

Found = tuple[FloatArray, FloatArray, FloatArray | None]
"""Codes [G, S, N], scales [G, 1, N] and zero points [G, 1, N] (None when symmetric), all as float32."""


def clip_search(weight: FloatArray, scheme: Scheme, importance: FloatArray | None = None) -> Found:
    """Search every group of a weight.

    Args:
        weight: float32 [K, N].
        scheme: what to produce.
        importance: float32 [K], not negative, what errors of each input channel weigh; None: all alike.
    """
    unit = _unit(weight) if scheme.scale_type == "FLOAT" else np.float32(1)
    if unit != 1:
        codes, scale, zero_point = clip_search(weight / unit, scheme, importance)
        return codes, stored_scale(scale * unit, scheme.scale_dtype), zero_point
    groups = grouped(weight, scheme)  # [G, S, N]
    count, size, n = groups.shape
    weights = _importance(weight.shape[0], scheme, importance)
    codes = np.empty_like(groups)
    scale = np.empty((count, 1, n), np.float32)
    zero_point = None if scheme.symmetric else np.empty((count, 1, n), np.float32)
    columns = max(1, _CHUNK // (count * size))
    for start in range(0, n, columns):
        chunk = np.s_[:, :, start : start + columns]
        found = _search(np.ascontiguousarray(groups[chunk]), weights, scheme)
        codes[chunk], scale[chunk] = found[0], found[1]
        if zero_point is not None:
            zero_point[chunk] = found[2]
    return codes, scale, zero_point


def _unit(weight: FloatArray) -> np.float32:
    """A power of two to divide the weight by, so that squares of errors neither overflow float32 nor vanish in it."""
    _, exponent = np.frexp(np.abs(weight).max(initial=0))
    return np.ldexp(np.float32(1), exponent) if abs(int(exponent)) > 24 else np.float32(1)


def _importance(k: int, scheme: Scheme, importance: FloatArray | None) -> FloatArray | None:
    """Importance as [G, S, 1], zero for padding; None where everything weighs the same."""
    padded = scheme.granularity == "blocked" and k % scheme.block_size
    if scheme.granularity == "per_tensor":  # one group of all weights, in which channels cannot be told apart
        return None
    if importance is None and not padded:
        return None
    values = np.ones(k, np.float32) if importance is None else importance.astype(np.float32)
    if not values.any():
        values = np.ones(k, np.float32)
    size = scheme.block_size if scheme.granularity == "blocked" else k
    return np.concatenate([values, np.zeros(-k % size, np.float32)]).reshape(-1, size, 1)


def _search(part: FloatArray, weights: FloatArray | None, scheme: Scheme) -> Found:
    """Best codes, scales and zero points of one chunk."""
    low, high = part.min(axis=1, keepdims=True), part.max(axis=1, keepdims=True)
    best: Found | None = None
    best_error = np.full(low.shape, np.inf, np.float32)
    for fraction in FRACTIONS[scheme.bits]:
        candidate = scales_from_range(low * np.float32(fraction), high * np.float32(fraction), scheme)
        best, best_error = _better(part, weights, candidate, scheme, best, best_error)
    assert best is not None
    codes, scale, zero_point = best
    centred = codes if zero_point is None else codes - zero_point
    weighted = centred if weights is None else centred * weights
    square = np.einsum("gsn,gsn->gn", weighted, centred)[:, None]
    refit = np.einsum("gsn,gsn->gn", weighted, part)[:, None] / np.where(square > 0, square, 1)
    refit = stored_scale(np.where((square > 0) & (refit > 0), refit, scale).astype(np.float32), scheme.scale_dtype)
    best, _ = _better(part, weights, (refit, zero_point), scheme, best, best_error)
    return best


def _better(
    part: FloatArray,
    weights: FloatArray | None,
    candidate: tuple[FloatArray, FloatArray | None],
    scheme: Scheme,
    best: Found | None,
    best_error: FloatArray,
) -> tuple[Found, FloatArray]:
    """The better of the best so far and a candidate (scale, zero point), group by group."""
    scale, zero_point = candidate
    codes = encode(part, scale, zero_point, scheme)
    difference = (codes if zero_point is None else codes - zero_point) * scale - part
    weighted = difference if weights is None else difference * weights
    error = np.einsum("gsn,gsn->gn", weighted, difference)[:, None]
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
