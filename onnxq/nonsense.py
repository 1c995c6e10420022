"""Nonsense: what is wrong with a weight quantizer's answer, in words."""

from __future__ import annotations

import numpy as np

from onnxq.affine import FloatArray, QuantizedWeight
from onnxq.scheme import Scheme

__all__ = ["nonsense"]


def nonsense(weight: FloatArray, quantized: QuantizedWeight, scheme: Scheme) -> str | None:
    """What is wrong with a plugin's answer; None when it keeps its contract."""
    if not isinstance(quantized, QuantizedWeight):
        return f"a {type(quantized).__name__} instead of a QuantizedWeight"
    if (problem := _wrong_types(quantized)) is not None:
        return problem
    if quantized.scheme != scheme:
        return f"scheme {quantized.scheme}, asked for {scheme}"
    k, n = weight.shape
    groups = -(-k // scheme.block_size) if scheme.granularity == "blocked" else 1
    expected = (groups, n) if scheme.granularity != "per_tensor" else (1, 1)
    if quantized.codes.shape != (k, n):
        return f"codes of shape {quantized.codes.shape}, expected {(k, n)}"
    if quantized.scales.shape != expected:
        return f"scales of shape {quantized.scales.shape}, expected {expected}"
    if not (np.isfinite(quantized.scales).all() and (quantized.scales > 0).all()):
        return "scales that are not positive and finite"
    if (quantized.scales.astype(scheme.scale_dtype) != quantized.scales).any():
        return f"scales that {scheme.scale_dtype} cannot hold (onnxq.affine.stored_scale rounds them)"
    if (problem := _wrong_codebook(quantized)) is not None:
        return problem
    if (quantized.zero_points is None) != scheme.symmetric:
        return "zero points for a symmetric scheme" if scheme.symmetric else "no zero points"
    integers = [quantized.codes] if quantized.zero_points is None else [quantized.codes, quantized.zero_points]
    if len(integers) == 2 and integers[1].shape != expected:
        return f"zero points of shape {integers[1].shape}, expected {expected}"
    for array in integers:
        if array.size and (array.min() < scheme.qmin or array.max() > scheme.qmax):
            return f"codes outside {scheme.qmin}..{scheme.qmax}"
    return None


def _wrong_types(quantized: QuantizedWeight) -> str | None:
    arrays = {"codes": quantized.codes, "scales": quantized.scales, "zero points": quantized.zero_points}
    for what, array in arrays.items():
        if array is None and what == "zero points":
            continue
        kind = np.floating if what == "scales" else np.integer
        if not isinstance(array, np.ndarray):
            return f"{what} in a {type(array).__name__} instead of an array"
        if not np.issubdtype(array.dtype, kind):
            return f"{what} of type {array.dtype}"
    return None


def _wrong_codebook(quantized: QuantizedWeight) -> str | None:
    codebook, scheme = quantized.codebook, quantized.scheme
    if (codebook is not None) != scheme.codebook:
        return "a codebook that nobody asked for" if codebook is not None else "no codebook"
    if codebook is None:
        return None
    if (
        codebook.ndim != 2
        or codebook.shape[1] != 1
        or not quantized.codes.max(initial=0) < len(codebook) <= scheme.qmax + 1
    ):
        return f"a codebook of shape {codebook.shape} for indices up to {quantized.codes.max(initial=0)}"
    if (codebook.astype(np.float16) != codebook).any():
        return "a codebook that float16 cannot hold"
    return None
