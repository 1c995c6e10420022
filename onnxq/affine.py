"""Affine quantization: the one place where floats become codes and codes become floats.

`q = saturate(round_half_even(x / scale) + zero_point)` and `x ~ (q - zero_point) * scale`, as in ONNX
QuantizeLinear/DequantizeLinear. Ties go to even; an all-zero block has scale 1.

Weights here are always `[K, N]`: K is the reduction axis, along which blocks run.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxq.scheme import NumberFormat, Scheme

__all__ = [
    "Codes",
    "FloatArray",
    "QuantizedWeight",
    "block_of_row",
    "blocked_view",
    "dequantize",
    "encode",
    "largest_scale",
    "scales_covering",
    "scales_from_range",
    "stored_scale",
]

FloatArray = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class QuantizedWeight:
    """A weight as integers: what a weight quantizer returns.

    Attributes:
        codes: int8 or uint8 [K, N], each within the scheme's qmin..qmax (2- and 4-bit codes unpacked).
        scales: float32 [groups, N], positive, finite, exactly representable in the stored scale type;
            groups is ceil(K / block_size), or 1 per axis, or the single number [1, 1] per tensor.
        zero_points: same dtype as codes and same shape as scales; None when symmetric.
        scheme: the scheme all of this follows.
        codebook: float32 [entries, 1], exact in float16, when the codes are indices; None otherwise.
    """

    codes: npt.NDArray[np.int8] | npt.NDArray[np.uint8]
    scales: FloatArray
    zero_points: npt.NDArray[np.uint8] | None
    scheme: Scheme
    codebook: FloatArray | None = None


def blocked_view(weight: npt.NDArray[np.floating], block_size: int) -> FloatArray:
    """Cut K into blocks: [K, N] -> [blocks, block_size, N], the ragged end padded with the last row.

    Repeating a real row keeps every block's minimum and maximum true, where zeros would widen them.
    """
    k, n = weight.shape
    blocks = -(-k // block_size)
    padded = weight
    if k % block_size:
        padded = np.concatenate([weight, np.repeat(weight[-1:], blocks * block_size - k, axis=0)])
    return np.ascontiguousarray(padded, dtype=np.float32).reshape(blocks, block_size, n)


def stored_scale(scale: FloatArray, dtype: npt.DTypeLike = np.float16) -> FloatArray:
    """Round scales to the type they are stored in, back as float32, never to zero or infinity.

    Codes must be computed from the scale that the runtime will see, so this comes before encoding.
    Rounding is to nearest, except below the type's smallest normal, where the steps are coarse: there it is
    upwards, so that the largest codes are not cut off.
    """
    info = np.finfo(np.dtype(dtype))
    clipped = np.clip(scale, np.float32(info.smallest_subnormal), np.float32(info.max))
    stored = clipped.astype(dtype)
    too_small = (clipped < info.tiny) & (stored.astype(np.float32) < clipped)
    stored = np.where(too_small, np.nextafter(stored, info.max), stored)
    return np.asarray(stored, dtype=np.float32)


def scales_from_range(
    low: FloatArray, high: FloatArray, scheme: Scheme, *, scale_dtype: npt.DTypeLike | None = None
) -> tuple[FloatArray, FloatArray | None]:
    """`scales_covering` with the scales stored as the scheme says, unless `scale_dtype` says otherwise."""
    stored = scheme.scale_dtype if scale_dtype is None else scale_dtype
    return scales_covering(low, high, scheme, scale_dtype=stored)


def scales_covering(
    low: FloatArray, high: FloatArray, scheme: NumberFormat, *, scale_dtype: npt.DTypeLike
) -> tuple[FloatArray, FloatArray | None]:
    """Scale and zero point that cover [low, high] (zero always included).

    Args:
        low: float32, any shape; the smallest value of each group.
        high: float32, same shape; the largest.
        scheme: gives qmin, qmax and symmetry.
        scale_dtype: the type in which scales will be stored.
    Returns:
        scales float32, and zero points as float32 integers in qmin..qmax (None when symmetric).
        A symmetric scale puts the value of largest magnitude on -2^(bits-1) or on 2^(bits-1)-1, whichever
        its sign allows; a group of zeros has scale 1.
    Source: ONNX QuantizeLinear-21; scale sign stays positive.
    """
    low = np.minimum(low, 0.0)
    high = np.maximum(high, 0.0)
    if scheme.symmetric:
        span = np.maximum(high / scheme.qmax, low / scheme.qmin)
    else:
        span = (high - low) / (scheme.qmax - scheme.qmin)
    scale = stored_scale(np.where(span > 0, span, 1.0).astype(np.float32), scale_dtype)
    if scheme.symmetric:
        return scale, None
    zero_point = np.clip(np.rint(scheme.qmin - low / scale), scheme.qmin, scheme.qmax)
    return scale, zero_point.astype(np.float32)


def encode(values: FloatArray, scale: FloatArray, zero_point: FloatArray | None, scheme: NumberFormat) -> FloatArray:
    """Codes of values as float32 integers: rounded half to even, then saturated.

    Shapes broadcast; float32 holds every code of up to 24 bits exactly and keeps the loop vectorised.
    """
    q = np.rint(values / scale)
    if zero_point is not None:
        q += zero_point
    return np.asarray(np.clip(q, scheme.qmin, scheme.qmax, out=q), dtype=np.float32)


def largest_scale(weight: FloatArray, scheme: Scheme) -> float:
    """Largest scale that any group of a float32 [K, N] weight needs, before it is stored; 0 for a weight of zeros."""
    low, high = min(float(weight.min()), 0.0), max(float(weight.max()), 0.0)
    if scheme.codebook:  # its values reach from -1 to 1
        return max(high, -low)
    if scheme.symmetric:
        return max(high / scheme.qmax, low / scheme.qmin)
    return (high - low) / (scheme.qmax - scheme.qmin)


def block_of_row(k: int, groups: int, scheme: Scheme) -> npt.NDArray[np.intp]:
    """Index of the scale row that row k of the weight uses: intp [K]."""
    size = scheme.block_size if scheme.granularity == "blocked" else k
    return np.minimum(np.arange(k) // size, groups - 1)


def dequantize(quantized: QuantizedWeight) -> FloatArray:
    """The float32 [K, N] weight that the runtime will multiply by."""
    k, n = quantized.codes.shape
    rows = block_of_row(k, quantized.scales.shape[0], quantized.scheme)
    weight = quantized.codes.astype(np.float32)
    if quantized.codebook is not None:
        weight = quantized.codebook[quantized.codes, 0]
    if quantized.zero_points is not None:
        weight -= np.broadcast_to(quantized.zero_points.astype(np.float32), (quantized.scales.shape[0], n))[rows]
    return weight * np.broadcast_to(quantized.scales, (quantized.scales.shape[0], n))[rows]
