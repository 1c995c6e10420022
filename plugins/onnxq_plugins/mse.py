"""mse and importance: clip search by squared error, plain or weighted by what calibration saw.

mse needs no data. importance weighs the error of each input channel with the mean square of its activations, which is
what the channel's weights are multiplied by.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxq.affine import FloatArray, QuantizedWeight
from onnxq.plugin.contracts import WeightEvidence, WeightQuantizer
from onnxq.plugin.hookspecs import hookimpl
from onnxq.scheme import Scheme
from onnxq_plugins.clip_search import clip_search
from onnxq_plugins.grouping import assemble

__all__ = ["Importance", "LeastSquares", "onnxq_weight_quantizers"]


class LeastSquares:
    """Clip search by squared error, then a closed-form scale."""

    name = "mse"

    def quantize(self, weight: FloatArray, scheme: Scheme, evidence: WeightEvidence | None) -> QuantizedWeight:
        """Quantize [K, N] with no more squared error in any group than rtn has."""
        return assemble(*clip_search(weight, scheme), k=weight.shape[0], scheme=scheme)


class Importance:
    """The same search, weighted by the second moment of the activations."""

    name = "importance"
    needs = "second_moment"

    def quantize(self, weight: FloatArray, scheme: Scheme, evidence: WeightEvidence | None) -> QuantizedWeight:
        """Quantize [K, N]; without evidence (a table, no data) this is mse."""
        moment = None if evidence is None else evidence.second_moment
        importance = None if moment is None else np.asarray(moment, np.float32)
        return assemble(*clip_search(weight, scheme, importance), k=weight.shape[0], scheme=scheme)


@hookimpl
def onnxq_weight_quantizers() -> Sequence[WeightQuantizer]:
    """Provide mse and importance."""
    return [LeastSquares(), Importance()]
