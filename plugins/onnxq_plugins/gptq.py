"""gptq: codes row by row, each rounding error corrected by the rows that are still free.

The error of a matmul over the calibration data is E = tr((W - W')^T H (W - W')), H the Gram matrix of its inputs.

1. Scales and zero points first, by clip search weighted with the diagonal of H. They stay fixed, so the rows may be
   quantized in any order and the layout in the file stays plain.
2. Rows in order of falling H_kk: what carries the most signal is rounded while the most rows can still correct it.
3. With U the upper Cholesky factor of H^-1, row k is rounded, and row j > k moves by -U_kj (w_k - w'_k) / U_kk.
   Updates are gathered in blocks of rows, so that most of the work is matrix products.
4. Damping is added to H until the factorisation succeeds, starting at 1% of its mean diagonal.
5. Codes and scales are then moved further, one after the other, as long as E falls (quadratic.py).

Source: Frantar et al. 2022 (GPTQ), algorithm 1; the static groups with activation order follow its authors' code notes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from onnxq.affine import FloatArray, QuantizedWeight, block_of_row
from onnxq.plugin.contracts import WeightEvidence, WeightQuantizer
from onnxq.plugin.hookspecs import hookimpl
from onnxq.scheme import Scheme
from onnxq_plugins.clip_search import clip_search
from onnxq_plugins.grouping import assemble
from onnxq_plugins.quadratic import Gram, better, polished
from onnxq_plugins.small_groups import LARGEST_K, round_columns

__all__ = ["Gptq", "damped", "inverse_factor", "onnxq_weight_quantizers", "round_in_order"]

_DAMPING = 0.01
_ROWS_AT_A_TIME = 128

_FINE = 8
"""Bits from which step 5 damps H too. Integer kernels round the activations as well, which excites what the data hardly
does: without damping, step 5 took the logits of EfficientNet-Lite0 from 24.6 to 22.3 dB, with it to 24.65.
"""
_TRIANGLE = 64


class Gptq:
    """Second-order rounding; falls back to plain clip search where there is no Gram matrix."""

    name = "gptq"
    needs = "gram"

    def quantize(self, weight: FloatArray, scheme: Scheme, evidence: WeightEvidence | None) -> QuantizedWeight:
        """Quantize [K, N]; no column has more error over the calibration data than by clip search alone.

        Without a Gram matrix (a table, no data), or with one scale for the whole tensor, this is mse.
        """
        gram = None if evidence is None else evidence.gram
        k = weight.shape[0]
        if gram is None or scheme.granularity == "per_tensor" or not np.diag(gram).any():
            return assemble(*clip_search(weight, scheme), k=k, scheme=scheme)
        found = clip_search(weight, scheme, np.diag(gram).astype(np.float32))
        rounded = assemble(*found, k=k, scheme=scheme)
        rows = block_of_row(k, found[1].shape[0], scheme)
        scale = found[1][rows, 0]
        zero_point = None if found[2] is None else found[2][rows, 0]
        codes = round_in_order(weight, gram, scale, zero_point, scheme)
        integers = codes.astype(np.int8) if scheme.symmetric else codes.astype(np.uint8)
        corrected = replace(rounded, codes=integers)
        best = better(weight, (rounded, corrected), gram)
        return polished(weight, best, damped(gram) if scheme.bits >= _FINE else gram)

    def quantize_groups(
        self, weight: FloatArray, scheme: Scheme, evidence: Sequence[WeightEvidence]
    ) -> QuantizedWeight | None:
        """All groups of a convolution in one go, where they are small; None: one by one is as good."""
        grams = [seen.gram for seen in evidence if seen.gram is not None]
        if len(grams) < len(evidence) or len(weight) > LARGEST_K or scheme.granularity != "per_axis":
            return None
        return round_columns(weight, np.repeat(np.stack(grams), weight.shape[1] // len(grams), axis=0), scheme)


def damped(gram: Gram) -> Gram:
    """H as if white noise of a tenth of the inputs' root mean square came on top of them."""
    return gram + _DAMPING * float(np.mean(np.diag(gram))) * np.eye(len(gram))


def round_in_order(
    weight: FloatArray, gram: Gram, scale: FloatArray, zero_point: FloatArray | None, scheme: Scheme
) -> FloatArray:
    """Steps 2 and 3: codes [K, N] as float32 integers; scale and zero_point are given per row, [K, N]."""
    order = np.argsort(-np.diag(gram), kind="stable")
    factor = inverse_factor(gram[np.ix_(order, order)])
    rest, scale = weight[order].astype(np.float32), scale[order]
    zero = np.zeros_like(scale) if zero_point is None else zero_point[order]
    codes = np.empty_like(rest)
    k = len(order)
    for start in range(0, k, _ROWS_AT_A_TIME):
        stop = min(start + _ROWS_AT_A_TIME, k)
        errors = np.empty((stop - start, rest.shape[1]), np.float32)
        for row in range(start, stop):
            code = np.clip(np.rint(rest[row] / scale[row]) + zero[row], scheme.qmin, scheme.qmax)
            error = (rest[row] - (code - zero[row]) * scale[row]) / factor[row, row]
            rest[row + 1 : stop] -= np.outer(factor[row, row + 1 : stop], error)
            codes[row], errors[row - start] = code, error
        rest[stop:] -= factor[start:stop, stop:].T @ errors
    restored = np.empty_like(codes)
    restored[order] = codes
    return restored


def inverse_factor(gram: Gram) -> FloatArray:
    """Upper Cholesky factor U of the inverse of the damped Gram matrix, H^-1 = U^T U, float32 [K, K] (step 4).

    With rows and columns in reverse, H = L L^T; then U is the inverse of L, rows and columns put back.
    A channel that never fired has no error to correct; a one on its diagonal keeps the matrix regular.
    """
    hessian = gram.copy()
    dead = np.diag(hessian) <= 0
    hessian[dead, dead] = 1.0
    damping = _DAMPING * float(np.mean(np.diag(hessian)))
    identity = np.eye(len(hessian))
    while True:
        try:
            lower = np.linalg.cholesky((hessian + damping * identity)[::-1, ::-1]).astype(np.float64)
        except np.linalg.LinAlgError:  # rounding has made it indefinite
            damping *= 10
            continue
        return np.ascontiguousarray(_inverse(lower)[::-1, ::-1], dtype=np.float32)


def _inverse(lower: Gram) -> Gram:
    """Inverse of a lower triangular matrix, by halves: a sixth of the work of a general one, in matrix products."""
    k = len(lower)
    if k <= _TRIANGLE:
        return np.tril(np.linalg.inv(lower))
    half = k // 2
    inverse = np.zeros_like(lower)
    first, last = _inverse(lower[:half, :half]), _inverse(lower[half:, half:])
    inverse[:half, :half], inverse[half:, half:] = first, last
    inverse[half:, :half] = -last @ (lower[half:, :half] @ first)
    return inverse


@hookimpl
def onnxq_weight_quantizers() -> Sequence[WeightQuantizer]:
    """Provide gptq."""
    return [Gptq()]
