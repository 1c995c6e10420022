"""Many small matmuls at once: the groups of a grouped convolution, each column [K] with a Gram matrix of its own.

A depthwise convolution of 1,152 channels is 1,152 matmuls of 9 or 25 rows and one column. One after the other they
cost a thousand times the overhead of a numpy call; here each step is taken for all columns together.

1. Scales by clip search, unweighted.
2. gptq: rows in order of falling H_kk, what is rounded away moves the rows that are still free (see gptq.py).
3. Rounds of best codes, row by row, and the best scale, (q^T H w) / (q^T H q) for the centred codes q of a column (see
   quadratic.py). A column keeps, of all that it went through, what had the least error.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from onnxq.affine import FloatArray, QuantizedWeight, dequantize, stored_scale
from onnxq.scheme import Scheme
from onnxq_plugins.clip_search import clip_search
from onnxq_plugins.grouping import assemble

__all__ = ["LARGEST_K", "round_columns"]

LARGEST_K = 128
"""K up to which this pays: beyond it a matmul keeps numpy busy alone, and N Gram matrices of K^2 take memory."""

_DAMPING = 0.01
_ROUNDS = 3

_Columns = npt.NDArray[np.float64]


def round_columns(weight: FloatArray, grams: npt.NDArray[np.float64], scheme: Scheme) -> QuantizedWeight:
    """Quantize a weight float32 [K, N]; no column has more output error than by clip search.

    Args:
        weight: the groups side by side.
        grams: float64 [N, K, K], of the inputs of each column.
        scheme: one scale per column.
    """
    best = assemble(*clip_search(weight, scheme), k=len(weight), scheme=scheme)
    w = weight.astype(np.float64)
    zero: _Columns | float = 0.0 if best.zero_points is None else best.zero_points.astype(np.float64)
    codes = _in_order(w, grams, best.scales.astype(np.float64), zero, scheme)
    best = _better(w, best, _with(best, codes, best.scales), grams)
    for _ in range(_ROUNDS):
        scales = best.scales.astype(np.float64)
        codes = _best_codes(w, best.codes.astype(np.float64), (scales, zero), grams, scheme)
        best = _better(w, best, _with(best, codes, best.scales), grams)
        best = _better(w, best, _with(best, best.codes, _best_scales(w, best, zero, grams)), grams)
    return best


def _in_order(w: _Columns, grams: _Columns, scales: _Columns, zero: _Columns | float, scheme: Scheme) -> _Columns:
    """Step 2: codes [K, N]."""
    k, n = w.shape
    order = np.argsort(-np.einsum("nkk->nk", grams), axis=1, kind="stable")  # [N, K]
    columns = np.arange(n)
    factor = _inverse_factors(grams[columns[:, None, None], order[:, :, None], order[:, None, :]])
    rest = np.take_along_axis(w.T, order, axis=1)  # [N, K]
    codes = np.empty_like(rest)
    scale, shift = scales[0], np.broadcast_to(zero, (1, n))[0]
    for row in range(k):
        codes[:, row] = np.clip(np.rint(rest[:, row] / scale) + shift, scheme.qmin, scheme.qmax)
        error = (rest[:, row] - (codes[:, row] - shift) * scale) / factor[:, row, row]
        rest[:, row + 1 :] -= error[:, None] * factor[:, row, row + 1 :]
    restored = np.empty_like(codes)
    np.put_along_axis(restored, order, codes, axis=1)
    return restored.T


def _inverse_factors(grams: _Columns) -> _Columns:
    """Upper Cholesky factors of the inverses of the damped Gram matrices; more damping for all until all succeed."""
    diagonal = np.einsum("nkk->nk", grams)
    hessians = grams + np.where(diagonal > 0, 0.0, 1.0)[:, :, None] * np.eye(grams.shape[1])  # of what never fired
    unit = np.einsum("nkk->n", hessians)[:, None, None] / grams.shape[1] * np.eye(grams.shape[1])
    damping = _DAMPING
    while True:
        try:
            return np.linalg.cholesky(np.linalg.inv(hessians + damping * unit)).transpose(0, 2, 1)
        except np.linalg.LinAlgError:
            damping *= 10


def _best_codes(
    w: _Columns, codes: _Columns, grid: tuple[_Columns, _Columns | float], grams: _Columns, scheme: Scheme
) -> _Columns:
    """One sweep: each row moves to the code with the least error, all others fixed; codes [K, N]."""
    scales, zero = grid
    gradient = np.einsum("nkj,jn->kn", grams, w - (codes - zero) * scales)  # half of -dE/dW'
    diagonal = np.einsum("nkk->kn", grams)
    diagonal = np.where(diagonal > 0, diagonal, np.inf)  # a row that never fired stays
    for row in range(len(codes)):
        code = np.clip(np.rint(codes[row] + gradient[row] / diagonal[row] / scales[0]), scheme.qmin, scheme.qmax)
        gradient -= grams[:, :, row].T * ((code - codes[row]) * scales[0])
        codes[row] = code
    return codes


def _best_scales(w: _Columns, quantized: QuantizedWeight, zero: _Columns | float, grams: _Columns) -> FloatArray:
    """[1, N]; a scale that would not be positive stays."""
    centred = quantized.codes - zero
    pull = np.einsum("nkj,jn->kn", grams, centred)  # H q
    square, target = (centred * pull).sum(axis=0), (w * pull).sum(axis=0)
    good = (square > 0) & (target > 0)
    solved = np.where(good, target / np.where(good, square, 1.0), quantized.scales)
    return stored_scale(solved.astype(np.float32), quantized.scheme.scale_dtype)


def _with(quantized: QuantizedWeight, codes: npt.NDArray[np.generic], scales: FloatArray) -> QuantizedWeight:
    integers = codes.astype(np.int8) if quantized.scheme.qmin < 0 else codes.astype(np.uint8)
    return replace(quantized, codes=integers, scales=scales)


def _better(w: _Columns, first: QuantizedWeight, second: QuantizedWeight, grams: _Columns) -> QuantizedWeight:
    """Column by column, that of the two which has less error."""
    wins = _errors(w, second, grams) < _errors(w, first, grams)
    return _with(first, np.where(wins, second.codes, first.codes), np.where(wins, second.scales, first.scales))


def _errors(w: _Columns, quantized: QuantizedWeight, grams: _Columns) -> _Columns:
    """d^T H d of each column, [N]."""
    difference = dequantize(quantized) - w
    return np.asarray(np.einsum("kn,nkj,jn->n", difference, grams, difference, optimize=True))
