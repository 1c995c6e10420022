"""Biases of integer kernels: int32 codes whose scale is the product of the input's and the weight's.

    sum_k x[k] w[k, n] + b[n] = s_x s_w[n] (sum_k (qx[k] - z) qw[k, n] + qb[n])     with qb[n] = b[n] / (s_x s_w[n])

The rounded weights w' = q s differ from w, so that the sums of a channel are off by sum_k mean(x[k]) (w' - w)[k, n] on
average. Where the means are known, the bias takes that back (bias correction; Nagel et al. 2019, section 4.2).

A channel with tiny weights and a large bias would need more than 32 bits; its weight scale is widened until it does
not. Those weights are then all but zero beside the bias, so that their coarser codes cost nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from onnxq.affine import FloatArray, QuantizedWeight, encode
from onnxq.plugin.contracts import WeightEvidence

__all__ = ["Bias", "corrected", "quantize_bias", "with_headroom"]

_LARGEST = 1 << 30
"""Bias codes up to here leave as much again for the products: K 255 128 < 2^30 up to K = 32,896."""


@dataclass(frozen=True, slots=True)
class Bias:
    """A float bias and the scale of the activation it meets.

    Attributes:
        values: float32 [N].
        input_scale: of the activation.
    """

    values: FloatArray
    input_scale: float


def corrected(bias: Bias, weight: FloatArray, approximation: FloatArray, evidence: Sequence[WeightEvidence]) -> Bias:
    """The bias that keeps the mean of every output channel where it was.

    Args:
        bias: of one node.
        weight: float32 [K, N], before.
        approximation: float32 [K, N], after quantization.
        evidence: one set per group, whose columns lie side by side; without means the bias stays as it is.
    """
    means = [seen.mean for seen in evidence if seen.mean is not None]
    if not means:
        return bias
    difference = (approximation - weight).astype(np.float64)
    parts = np.split(difference, len(means), axis=1)
    drift = np.concatenate([mean @ part for mean, part in zip(means, parts, strict=True)])
    return replace(bias, values=(bias.values - drift).astype(np.float32))


def with_headroom(weight: FloatArray, quantized: QuantizedWeight, biases: Sequence[Bias]) -> QuantizedWeight:
    """The quantized weight, with scales widened where a bias would not fit its int32 codes.

    Args:
        weight: float32 [K, N] that was quantized.
        quantized: one scale per column, or one in all.
        biases: of all nodes that share the weight.
    """
    if not biases:  # a weight of no integer operator: blocked scales stay as they are
        return quantized
    least = np.zeros(weight.shape[1], np.float32)
    for bias in biases:
        least = np.maximum(least, np.abs(bias.values) / np.float32(bias.input_scale * _LARGEST))
    if quantized.scales.size == 1:
        least = least.max(keepdims=True)
    narrow = quantized.scales.reshape(-1) < least
    if not narrow.any():
        return quantized
    scales = np.maximum(quantized.scales, least.reshape(1, -1)).astype(np.float32)
    zero_points = None if quantized.zero_points is None else quantized.zero_points.astype(np.float32)
    codes = encode(weight, scales, zero_points, quantized.scheme).astype(quantized.codes.dtype)
    kept = quantized.codes if narrow.size > 1 else codes
    return replace(quantized, codes=np.where(narrow, codes, kept), scales=scales)


def quantize_bias(bias: Bias, quantized: QuantizedWeight) -> tuple[npt.NDArray[np.int32], FloatArray]:
    """Codes int32 [N] and scales float32 ([N], or a single number per tensor) of a bias."""
    scales = (quantized.scales.reshape(-1) * np.float32(bias.input_scale)).astype(np.float32)
    limits = np.iinfo(np.int32)
    codes = np.clip(np.rint(bias.values.astype(np.float64) / scales), limits.min, limits.max)
    return codes.astype(np.int32), scales if scales.size > 1 else scales.reshape(())
