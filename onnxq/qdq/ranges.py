"""Ranges: which tensors have to be observed, and the scale that each tensor of a layout gets from what was seen.

1. A tensor that is moved (Reshape, MaxPool..) has the scale of what it was made from.
2. A constant is its own evidence.
3. Anything else has the range that its calibrator proposes, cut where a Relu or Clip saturates it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from onnxq.evidence import Evidence, Wish
from onnxq.qdq.activations import ActivationDecision, ActivationFormat
from onnxq.qdq.layout import Layout, Tensor
from onnxq.recipe import Recipe

__all__ = ["decide_activations", "unobserved_readers", "wishes_for"]


def wishes_for(layout: Layout, recipe: Recipe) -> tuple[Wish, ...]:
    """What calibration has to watch, each tensor with its calibrator."""
    return tuple(Wish(tensor.name, _wished(tensor, recipe)[1]) for tensor in layout.roots)


def decide_activations(
    layout: Layout, graph: ir.Graph, recipe: Recipe, evidence: Evidence
) -> tuple[ActivationDecision, ...]:
    """Scale and zero point of every tensor that becomes codes, in graph order.

    Raises:
        PlanError: a tensor of `layout.roots` was not observed.
        PluginError: its calibrator failed.
    """
    decided: dict[str, ActivationDecision] = {}
    for tensor in layout.tensors.values():
        if tensor.root != tensor.name:  # 1
            root = decided[tensor.root]
            decided[tensor.name] = ActivationDecision(
                tensor=tensor.name,
                format=root.format,
                scale=root.scale,
                zero_point=root.zero_point,
                shares_with=tensor.root,
                integer=tensor.integer,
                constant=tensor.constant,
                reason=f"made from '{tensor.root}' by moving values",
            )
            continue
        form, calibrator = _wished(tensor, recipe)
        if tensor.constant:  # 2
            low, high = _constant_range(graph.initializers[tensor.name])
            reason = "its own values"
        else:  # 3
            seen = evidence.range(tensor.name, form)
            low, high = max(float(seen[0]), tensor.bounds[0]), min(float(seen[1]), tensor.bounds[1])
            reason = calibrator
        scale, zero_point = form.quantize_range(low, high)
        decided[tensor.name] = ActivationDecision(
            tensor=tensor.name,
            format=form,
            scale=scale,
            zero_point=zero_point,
            shares_with=None,
            integer=tensor.integer,
            constant=tensor.constant,
            reason=reason,
        )
    return tuple(decided.values())


def unobserved_readers(layout: Layout, evidence: Evidence) -> Mapping[str, str]:
    """Integer nodes that lack a range, with the reason: they have to stay float."""
    missing = {tensor.name for tensor in layout.roots if tensor.name not in evidence.tensors}
    if not missing:
        return {}
    without = {name for name, tensor in layout.tensors.items() if tensor.root in missing}
    barred = {}
    for node in layout.integers:
        if lost := without.intersection((*node.inputs, *node.outputs)):
            name = min(lost)
            root = layout.tensors[name].root
            barred[node.node] = f"'{root}' has no range: {evidence.unobserved.get(root, 'it was not calibrated')}"
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
