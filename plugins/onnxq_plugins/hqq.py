"""hqq: scales and integer zero points by half-quadratic splitting, for weights with outliers; no data.

A group of weights w loses sum |w - w'|^p with p < 1: few large errors are forgiven, many small ones are not. That is
split into two steps, taken in turn from what mse found; r = w / s - (q - z) is the error in steps of the scale.

1. Shrinkage: e = sign(r) max(|r| - |r|^(p-1) / beta, 0), what is to be left as an error; t = w / s - e is to be met.
2. Fit: for z and its two neighbours, the least squares factor of s that meets t; w is encoded again with each.

beta grows from round to round; a group takes what lowers its loss. The mean of q - t, which is the best real z, would
not do: errors are half a step at most, so it always rounds to the z that was there. Zero points stay integers because
float ones cost stock onnxruntime a kernel two orders of magnitude slower.

Source: Badri and Shaji 2023 (half-quadratic quantization), who fit a float zero point and leave the scale.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxq.affine import FloatArray, QuantizedWeight, encode, stored_scale
from onnxq.plugin.contracts import WeightEvidence, WeightQuantizer
from onnxq.plugin.hookspecs import hookimpl
from onnxq.scheme import Scheme
from onnxq_plugins.clip_search import Found, clip_search
from onnxq_plugins.grouping import assemble, grouped

__all__ = ["HalfQuadratic", "onnxq_weight_quantizers"]

_P = 0.7
_BETA, _GROWTH = 10.0, 1.01
"""p, and the paper's beta and growth; in steps of the scale, beta means the same for weights of any size: errors below
0.17 steps, where |r| = |r|^(p-1) / beta, are to be met as they are."""

_ROUNDS = 8
_CHUNK = 1 << 18
"""Weights at a time: the temporaries stay in a core's cache."""


class HalfQuadratic:
    """Least sum of |error|^p of each group."""

    name = "hqq"

    def quantize(self, weight: FloatArray, scheme: Scheme, evidence: WeightEvidence | None) -> QuantizedWeight:
        """Quantize [K, N]; no group has a larger sum of |error|^0.7 than by mse."""
        k = weight.shape[0]
        groups, start = grouped(weight, scheme), clip_search(weight, scheme)  # [G, S, N]
        count, size, n = groups.shape
        real = np.ones((count, size, 1), np.float32)  # 0: a row that pads the last block
        if scheme.granularity == "blocked" and k % size:
            real[-1, k % size :] = 0
        columns = max(1, _CHUNK // (count * size))
        chunks = [np.s_[:, :, first : first + columns] for first in range(0, n, columns)]
        parts = [_fitted(groups[chunk], _columns(start, chunk), real, scheme) for chunk in chunks]
        codes, scale = (np.concatenate([part[which] for part in parts], axis=2) for which in (0, 1))
        zero_points = [part[2] for part in parts if part[2] is not None]
        return assemble(codes, scale, np.concatenate(zero_points, axis=2) if zero_points else None, k=k, scheme=scheme)


def _columns(found: Found, chunk: tuple[slice, ...]) -> Found:
    codes, scale, zero_point = found
    return codes[chunk], scale[chunk], None if zero_point is None else zero_point[chunk]


def _fitted(part: FloatArray, start: Found, real: FloatArray, scheme: Scheme) -> Found:
    """Codes [G, S, n], scales and zero points [G, 1, n] of some columns."""
    best, beta = start, _BETA
    best_loss = _loss(part, best, real)
    for _ in range(_ROUNDS):
        codes, scale, zero_point = best
        steps = part / scale
        target = steps - _shrunk(steps - _centred(codes, zero_point), beta)
        for move in (0,) if zero_point is None else (0, -1, 1):
            moved = None if zero_point is None else np.clip(zero_point + move, scheme.qmin, scheme.qmax)
            best, best_loss = _better(part, (best, best_loss), _refit(part, (target, scale, moved), real, scheme), real)
        beta *= _GROWTH
    return best


def _centred(codes: FloatArray, zero_point: FloatArray | None) -> FloatArray:
    return codes if zero_point is None else codes - zero_point


def _refit(part: FloatArray, wanted: Found, real: FloatArray, scheme: Scheme) -> Found:
    """Step 2 for one zero point; wanted is t [G, S, n] in steps of the scale, and scale and zero point [G, 1, n]."""
    target, scale, zero_point = wanted
    centred = _centred(encode(target, np.ones_like(scale), zero_point, scheme), zero_point)
    weighted = centred * real
    square = np.einsum("gsn,gsn->gn", weighted, centred)[:, None]
    factor = np.einsum("gsn,gsn->gn", weighted, target)[:, None] / np.where(square > 0, square, 1)
    scale = stored_scale(np.where(factor > 0, scale * factor, scale), scheme.scale_dtype)
    return encode(part, scale, zero_point, scheme), scale, zero_point


def _better(
    part: FloatArray, known: tuple[Found, FloatArray], candidate: Found, real: FloatArray
) -> tuple[Found, FloatArray]:
    """Group by group, the better of the best so far with its loss and a candidate."""
    (codes, scale, zero_point), best_loss = known
    loss = _loss(part, candidate, real)
    wins = loss < best_loss
    kept_zero = None
    if zero_point is not None and candidate[2] is not None:
        kept_zero = np.where(wins, candidate[2], zero_point)
    found = np.where(wins, candidate[0], codes), np.where(wins, candidate[1], scale), kept_zero
    return found, np.minimum(loss, best_loss)


def _shrunk(error: FloatArray, beta: float) -> FloatArray:
    """Step 1; an error of zero has no power below zero and stays."""
    size = np.abs(error)
    power = np.power(np.maximum(size, np.finfo(np.float32).tiny), np.float32(_P - 1))
    return np.asarray(np.sign(error) * np.maximum(size - power / np.float32(beta), 0), dtype=np.float32)


def _loss(part: FloatArray, found: Found, real: FloatArray) -> FloatArray:
    """Sum of |w - w'|^p of each group, [G, 1, n]."""
    codes, scale, zero_point = found
    error = np.abs(_centred(codes, zero_point) * scale - part)
    return np.asarray((np.power(error, np.float32(_P)) * real).sum(axis=1, keepdims=True), dtype=np.float32)


@hookimpl
def onnxq_weight_quantizers() -> Sequence[WeightQuantizer]:
    """Provide hqq."""
    return [HalfQuadratic()]
