"""Ranges: which tensors have to be observed, and the scale that each tensor of a layout gets from what was seen.

1. A tensor that is moved (Reshape, MaxPool..) has the scale of what it was made from.
2. A constant is its own evidence.
3. What was trained is kept; only where a Relu or Clip that is taken out would have cut it, it is cut.
4. Anything else has the range that its calibrator proposes, cut where a Relu or Clip saturates it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

import numpy as np
import onnx_ir as ir

from onnxq.errors import PlanError
from onnxq.evidence import Evidence, Wish
from onnxq.qdq.activations import ActivationDecision, ActivationFormat
from onnxq.qdq.layout import Layout, Tensor
from onnxq.qdq.trained import NOTHING, Trained
from onnxq.recipe import Recipe

__all__ = ["decide_activations", "unobserved_readers", "wishes_for"]


def wishes_for(layout: Layout, recipe: Recipe, trained: Trained = NOTHING) -> tuple[Wish, ...]:
    """What calibration has to watch, each tensor with its calibrator."""
    unknown = (tensor for tensor in layout.roots if tensor.name not in trained.ranges)
    return tuple(Wish(tensor.name, _wished(tensor, recipe)[1]) for tensor in unknown)


def decide_activations(
    layout: Layout, graph: ir.Graph, recipe: Recipe, evidence: Evidence | None, trained: Trained = NOTHING
) -> tuple[ActivationDecision, ...]:
    """Scale and zero point of every tensor that becomes codes, in graph order.

    Args:
        layout: of the graph.
        graph: normalised.
        recipe: calibrators and types.
        evidence: what was observed; None if nothing had to be.
        trained: what the model brings along.
    Raises:
        PlanError: a tensor of `layout.roots` was neither trained nor observed.
        PluginError: its calibrator failed.
    """
    decided: dict[str, ActivationDecision] = {}
    for tensor in layout.tensors.values():
        if tensor.root == tensor.name:
            form, scale, zero_point, reason = _own_range(tensor, graph, recipe, evidence, trained)
        else:  # 1
            root = decided[tensor.root]
            form, scale, zero_point = root.format, root.scale, root.zero_point
            reason = f"made from '{tensor.root}' by moving values"
        decided[tensor.name] = ActivationDecision(
            tensor=tensor.name,
            format=form,
            scale=scale,
            zero_point=zero_point,
            shares_with=None if tensor.root == tensor.name else tensor.root,
            integer=tensor.integer,
            constant=tensor.constant,
            reason=reason,
        )
    return tuple(decided.values())


def _own_range(
    tensor: Tensor, graph: ir.Graph, recipe: Recipe, evidence: Evidence | None, trained: Trained
) -> tuple[ActivationFormat, float, int, str]:
    """Format, scale, zero point, and where they come from."""
    form, calibrator = _wished(tensor, recipe)
    if tensor.constant:  # 2
        low, high = _constant_range(graph.initializers[tensor.name])
        return form, *form.quantize_range(low, high), "its own values"
    if tensor.name in trained.ranges:  # 3
        kept = trained.ranges[tensor.name].in_type(signed=recipe.activation_signed)
        low = (kept.format.qmin - kept.zero_point) * kept.scale
        high = (kept.format.qmax - kept.zero_point) * kept.scale
        if low > tensor.bounds[0] - kept.scale / 2 and high < tensor.bounds[1] + kept.scale / 2:
            return kept.format, kept.scale, kept.zero_point, "trained"
        low, high = max(low, tensor.bounds[0]), min(high, tensor.bounds[1])
        return kept.format, *kept.format.quantize_range(low, high), "trained, cut where the next node saturates"
    if evidence is None:
        raise PlanError(f"tensor '{tensor.name}' has no range: nothing was calibrated; run onnxq calibrate")
    seen = evidence.range(tensor.name, form)  # 4
    low, high = max(float(seen[0]), tensor.bounds[0]), min(float(seen[1]), tensor.bounds[1])
    return form, *form.quantize_range(low, high), calibrator


def unobserved_readers(layout: Layout, evidence: Evidence | None, trained: Trained = NOTHING) -> Mapping[str, str]:
    """Integer nodes that lack a range, with the reason: they have to stay float."""
    observed: Collection[str] = () if evidence is None else evidence.tensors
    missing = {tensor.name for tensor in layout.roots} - set(observed) - set(trained.ranges)
    without = {name for name, tensor in layout.tensors.items() if tensor.root in missing}
    reasons: Mapping[str, str] = {} if evidence is None else evidence.unobserved
    barred = {}
    for node in layout.integers:
        if lost := without.intersection((*node.inputs, *node.outputs)):
            root = layout.tensors[min(lost)].root
            barred[node.node] = f"'{root}' has no range: {reasons.get(root, 'it was not calibrated')}"
    return barred


def _wished(tensor: Tensor, recipe: Recipe) -> tuple[ActivationFormat, str]:
    """Format and calibrator; overrides match the node that makes the tensor, or the name of a model input."""
    bits, symmetric, calibrator = recipe.activation_bits, recipe.activation_symmetric, recipe.calibrator
    for rule in recipe.override:
        if re.search(rule.nodes, tensor.producer or tensor.name):
            bits = rule.activation_bits if rule.activation_bits is not None else bits
            symmetric = rule.activation_symmetric if rule.activation_symmetric is not None else symmetric
            calibrator = rule.calibrator if rule.calibrator is not None else calibrator
    return ActivationFormat(bits=bits, signed=recipe.activation_signed, symmetric=symmetric), calibrator


def _constant_range(value: ir.Value) -> tuple[float, float]:
    assert value.const_value is not None
    array = value.const_value.numpy()
    finite = array[np.isfinite(array)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
