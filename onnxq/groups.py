"""Groups: the filters of a grouped convolution are as many matmuls side by side, each with inputs of its own.

    weight [K, N] = [K, N / G] of group 0 | [K, N / G] of group 1 | ..

A weight quantizer that weighs errors by its inputs is asked group by group and need not know of convolutions. Where it
has a method `quantize_groups(weight, scheme, evidence)`, that is asked first: it may do all groups in one go, or None.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxq.affine import FloatArray, QuantizedWeight
from onnxq.plugin.contracts import WeightEvidence, WeightQuantizer
from onnxq.scheme import Scheme

__all__ = ["quantize_groups"]


def quantize_groups(
    method: WeightQuantizer, weight: FloatArray, scheme: Scheme, evidence: Sequence[WeightEvidence]
) -> QuantizedWeight:
    """Quantize a weight float32 [K, N], whose groups differ in their evidence.

    Args:
        method: what quantizes.
        weight: read-only.
        scheme: with one scale in all, groups cannot be told apart and there is no evidence for the whole.
        evidence: one set per group, or none at all.
    """
    needs = getattr(method, "needs", None)
    if len(evidence) == 1:
        return method.quantize(weight, scheme, evidence[0] if needs is not None else None)
    if not evidence or needs is None or scheme.granularity == "per_tensor":
        return method.quantize(weight, scheme, None)
    together = getattr(method, "quantize_groups", None)
    if together is not None and (quantized := together(weight, scheme, evidence)) is not None:
        assert isinstance(quantized, QuantizedWeight)
        return quantized
    parts = []
    for part, seen in zip(np.split(weight, len(evidence), axis=1), evidence, strict=True):
        columns = np.ascontiguousarray(part)
        columns.flags.writeable = False
        parts.append(method.quantize(columns, scheme, seen))
    zero_points = [part.zero_points for part in parts if part.zero_points is not None]
    return QuantizedWeight(
        codes=np.concatenate([part.codes for part in parts], axis=1),
        scales=np.concatenate([part.scales for part in parts], axis=1),
        zero_points=np.concatenate(zero_points, axis=1) if zero_points else None,
        scheme=scheme,
    )
