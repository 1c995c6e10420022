"""From [K, N] to groups that share a scale and back: [G, S, N], S weights of group g in column n.

Per tensor, the whole matrix is one group of one column: [1, K * N, 1].
"""

from __future__ import annotations

import numpy as np

from onnxq.affine import FloatArray, QuantizedWeight, blocked_view
from onnxq.scheme import Scheme

__all__ = ["assemble", "grouped"]


def grouped(weight: FloatArray, scheme: Scheme) -> FloatArray:
    """View [K, N] as groups [G, S, N]; a ragged last block is padded with the last row."""
    if scheme.granularity == "blocked":
        return blocked_view(weight, scheme.block_size)
    if scheme.granularity == "per_axis":
        return np.asarray(weight, dtype=np.float32)[None]
    return np.asarray(weight, dtype=np.float32).reshape(1, -1, 1)


def assemble(
    codes: FloatArray,
    scale: FloatArray,
    zero_point: FloatArray | None,
    *,
    k: int,
    scheme: Scheme,
    codebook: FloatArray | None = None,
) -> QuantizedWeight:
    """The QuantizedWeight of grouped results.

    Args:
        codes: [G, S, N] integers in float32; padding is cut off.
        scale: [G, 1, N].
        zero_point: [G, 1, N] integers in float32, or None.
        k: K of the weight.
        scheme: what the codes follow.
        codebook: what the codes are indices into, or None.
    """
    groups, size, n = codes.shape
    flat = codes.reshape(k, -1) if scheme.granularity == "per_tensor" else codes.reshape(groups * size, n)[:k]
    return QuantizedWeight(
        codes=flat.astype(np.int8) if scheme.qmin < 0 else flat.astype(np.uint8),
        scales=np.ascontiguousarray(scale[:, 0]),
        zero_points=None if zero_point is None else np.ascontiguousarray(zero_point[:, 0]).astype(np.uint8),
        scheme=scheme,
        codebook=codebook,
    )
