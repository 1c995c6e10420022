"""rtn: round to nearest over each group's full range. The fastest method and everyone's baseline."""

from __future__ import annotations

from collections.abc import Sequence

from onnxq.affine import FloatArray, QuantizedWeight, encode, scales_from_range
from onnxq.plugin.contracts import WeightEvidence, WeightQuantizer
from onnxq.plugin.hookspecs import hookimpl
from onnxq.scheme import Scheme
from onnxq_plugins.grouping import assemble, grouped

__all__ = ["RoundToNearest", "onnxq_weight_quantizers"]


class RoundToNearest:
    """Scale from the group's minimum and maximum, codes by rounding; no search, no data."""

    name = "rtn"

    def quantize(self, weight: FloatArray, scheme: Scheme, evidence: WeightEvidence | None) -> QuantizedWeight:
        """Quantize [K, N]; the error of each weight is at most half its scale (plus float16 rounding of it)."""
        groups = grouped(weight, scheme)  # [G, S, N]
        low, high = groups.min(axis=1, keepdims=True), groups.max(axis=1, keepdims=True)
        scale, zero_point = scales_from_range(low, high, scheme)
        codes = encode(groups, scale, zero_point, scheme)
        return assemble(codes, scale, zero_point, k=weight.shape[0], scheme=scheme)


@hookimpl
def onnxq_weight_quantizers() -> Sequence[WeightQuantizer]:
    """Provide rtn."""
    return [RoundToNearest()]
