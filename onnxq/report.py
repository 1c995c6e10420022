"""Report: the result of a conversion as one plain value, and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from onnxq.bench import Latency, Slower
from onnxq.damage import Damage
from onnxq.decide import Decision
from onnxq.qdq.activations import ActivationDecision
from onnxq.qdq.layout import FloatNode, IntegerNode
from onnxq.recipe import Recipe
from onnxq.sizes import parse_size
from onnxq.survey import Skip
from onnxq.verification import Verdict

__all__ = ["ConvertReport", "SiteReport", "as_json"]


@dataclass(frozen=True, slots=True)
class SiteReport:
    """What became of one node.

    Attributes:
        decision: what was planned.
        weight_sqnr_db: of the weight itself.
        stored_bytes: of the weight in the file (0 when it is stored at another node).
        damage: of the layer's output, None when it could not be compared.
        found: operator seen in stock onnxruntime's optimised graph; None when not checked.
        found_with_library: the same with onnxq's library registered; None when not checked.
    """

    decision: Decision
    weight_sqnr_db: float
    stored_bytes: int
    damage: Damage | None
    found: str | None
    found_with_library: str | None


@dataclass(frozen=True, slots=True)
class IntegerReport:
    """What became of one node that was planned to run on codes.

    Attributes:
        planned: what was planned.
        found: operator seen in stock onnxruntime's optimised graph; None when not checked.
        damage: of its output, None when it could not be compared.
    """

    planned: IntegerNode
    found: str | None
    damage: Damage | None


@dataclass(frozen=True, slots=True)
class ConvertReport:
    """Everything a user may want to know about a conversion.

    Attributes:
        model: path of the float model.
        output: path of the quantized model.
        files: all files written.
        recipe: what was asked for.
        versions: of onnxq, onnxruntime, onnx, numpy.
        float_bytes: of the float model on disk, external data included.
        output_bytes: of the files written.
        quantized_weights: number of weights that were quantized, shared ones once.
        file_bits_per_weight: average over the quantized weights, scales and zero points counted.
        resident_bits_per_weight: the same for what stock onnxruntime holds in memory.
        sites: one per quantized node.
        integers: one per node that runs on integer codes.
        floats: nodes that stay float beside them, with the reason.
        activations: scale and zero point of each tensor that became codes.
        calibration: where the ranges come from.
        reduce_range: integer weights keep to 7 bits.
        skips: weights left as they are.
        warnings: what the user should know.
        verdict: measured damage; None when it could not be measured (a warning says why).
        latency: by contestant, with --bench.
        slower: integer nodes that take longer than in the float model, with --bench.
        seconds: of each stage.
        peak_bytes: highest resident memory of the process.
    """

    model: str
    output: str
    files: tuple[str, ...]
    recipe: Recipe
    versions: Mapping[str, str]
    float_bytes: int
    output_bytes: int
    quantized_weights: int
    file_bits_per_weight: float
    resident_bits_per_weight: float
    sites: tuple[SiteReport, ...]
    integers: tuple[IntegerReport, ...]
    floats: tuple[FloatNode, ...]
    activations: tuple[ActivationDecision, ...]
    calibration: str
    reduce_range: bool
    skips: tuple[Skip, ...]
    warnings: tuple[str, ...]
    verdict: Verdict | None
    latency: Mapping[str, Latency]
    seconds: Mapping[str, float]
    peak_bytes: int
    slower: tuple[Slower, ...] = ()

    @property
    def passed(self) -> bool:
        """Targets are met: no output lost its finiteness, and the size is what was asked for."""
        target = self.recipe.target_size
        fits = target is None or self.output_bytes <= parse_size(target)
        return fits and (self.verdict is None or self.verdict.finite)


def as_json(report: Any) -> str:
    """Any report value as JSON, that of a conversion with `passed`.

    What JSON has no number for becomes a string: "inf", "-inf", and "nan" where nothing could be measured.
    """
    plain = _plain(report)
    if isinstance(report, ConvertReport):
        plain["passed"] = report.passed
    return json.dumps(plain, indent=1, ensure_ascii=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, Recipe):
        return _plain(value.model_dump())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    return value
