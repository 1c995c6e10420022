"""Rewrite: carry out a Plan on a clone of the graph. It makes one choice of its own, which needs a weight's values:
scales that float16 cannot hold are stored as float32, and a warning says so.

Weights go one at a time: read, quantized by the planned plugin, checked, written straight to the output's data
file, forgotten. Memory holds one weight at a time, whatever the size of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from onnxq import ops
from onnxq.affine import FloatArray, QuantizedWeight, dequantize, largest_scale
from onnxq.decide import Decision, Plan
from onnxq.errors import PlanError
from onnxq.fusion_guards import guard_fusions, guard_gathers
from onnxq.groups import quantize_groups
from onnxq.model import Model
from onnxq.nonsense import nonsense
from onnxq.normalise.names import name_nodes
from onnxq.plugin.contracts import Placement, Replacement, WeightEvidence
from onnxq.plugin.registry import Registry
from onnxq.qdq.bias import Bias, corrected, quantize_bias, with_headroom
from onnxq.qdq.insert import insert_activations
from onnxq.survey import find_nodes
from onnxq.weights import read_weight

__all__ = ["Rewritten", "TensorSink", "rewrite"]

TensorSink = Callable[[ir.TensorProtocol, str], ir.TensorProtocol]
"""Takes a tensor and its name, stores it, and returns the tensor to put into the graph instead."""

_LEAST_SQNR = 5.0
"""dB of a weight below which something is wrong: rounding a Gaussian to 3 bits over its whole range leaves more, even
in channels of thousands."""


@dataclass(frozen=True, slots=True)
class Rewritten:
    """The quantized graph and what quantizing did to each weight.

    Attributes:
        model: the new Model; packed tensors are where the sink put them.
        weight_sqnr: dB of weight energy over quantization error, by node name (inf: no error).
        stored_bytes: bytes that each node's weight takes in the file, by node name; a weight shared by
            several nodes counts at its first one.
        decisions: the plan's, as carried out: with float32 scales where float16 cannot hold them.
        warnings: where that was so, and weights that quantization has destroyed.
    """

    model: Model
    weight_sqnr: Mapping[str, float]
    stored_bytes: Mapping[str, int]
    decisions: tuple[Decision, ...] = ()
    warnings: tuple[str, ...] = ()


def rewrite(
    model: Model,
    plan: Plan,
    registry: Registry,
    *,
    sink: TensorSink,
    evidence_of: Callable[[str], Sequence[WeightEvidence]] = lambda node: (),
    on_weight: Callable[[Decision], None] = lambda decision: None,
) -> Rewritten:
    """Put quantized weights and the planned nodes into a clone of a normalised model.

    Args:
        model: normalised; left untouched.
        plan: made for it.
        registry: where the planned plugins are.
        sink: stores each packed tensor.
        evidence_of: what calibration saw at a node's input, for weight quantizers that ask for it and for bias
            correction; one set per group of a convolution.
        on_weight: called before each weight, for progress.
    Raises:
        PlanError: a weight holds NaN or infinity.
        PluginError: a plugin raised or returned nonsense.
    """
    if plan.integers and not plan.activations:
        raise PlanError(
            f"{model.path}: the plan has {len(plan.integers)} integer nodes but no ranges of their activations; "
            "decide with evidence (onnxq calibrate)"
        )
    graph = model.ir.clone()
    rewriting = _Rewriting(graph, plan, registry, sink, evidence_of)
    for decisions in _by_weight(plan):
        on_weight(decisions[0])
        rewriting.weight(decisions)
    insert_activations(graph, plan.integers, plan.activations)
    packed = [node for node in graph.graph.all_nodes() if node.domain == ops.DOMAIN]
    guard_fusions(packed)
    guard_gathers(packed)
    common.RemoveUnusedNodesPass()(graph)
    name_nodes(graph)  # a tensor may be called what a node is called, and so may what is put behind the two
    if graph.functions:
        graph.graph.opset_imports[ops.DOMAIN] = ops.VERSION
    return Rewritten(
        model=Model(model.path, graph, model.fingerprint, model.custom_op_libraries),
        weight_sqnr=rewriting.sqnr,
        stored_bytes=rewriting.stored,
        decisions=tuple(rewriting.decisions[decision.site.node] for decision in plan.decisions),
        warnings=tuple(rewriting.warnings),
    )


def _by_weight(plan: Plan) -> list[list[Decision]]:
    groups: dict[tuple[str, str, str], list[Decision]] = {}
    for decision in plan.decisions:
        groups.setdefault(decision.site.storage, []).append(decision)
    return list(groups.values())


class _Rewriting:
    """One graph on its way, and what is known of the weights so far."""

    def __init__(
        self,
        graph: ir.Model,
        plan: Plan,
        registry: Registry,
        sink: TensorSink,
        evidence_of: Callable[[str], Sequence[WeightEvidence]],
    ) -> None:
        self._graph, self._plan, self._registry, self._sink = graph, plan, registry, sink
        self._evidence_of = evidence_of
        self._nodes = find_nodes(graph)
        self.sqnr: dict[str, float] = {}
        self.stored: dict[str, int] = {}
        self.decisions: dict[str, Decision] = {}
        self.warnings: list[str] = []

    def weight(self, decisions: Sequence[Decision]) -> None:
        """Quantize one weight and replace every node that reads it."""
        weight = read_weight(self._nodes, decisions[0].site)
        decisions = self._with_scales(decisions, weight)
        first = decisions[0]
        quantized = _quantize(weight, first, self._registry, self._evidence_of(first.site.node))
        biases = {
            decision.site.node: bias
            for decision in decisions
            if (bias := _bias(self._graph, self._plan, decision)) is not None
        }
        quantized = with_headroom(weight, quantized, list(biases.values()))
        approximation = dequantize(quantized)
        if self._plan.bias_correction:
            biases = {
                name: corrected(bias, weight, approximation, self._evidence_of(name)) for name, bias in biases.items()
            }
        damage = _sqnr(weight, approximation)
        form = self._registry.format(first.format)
        with form.guarded(first.site.node) as plugin:
            tensors = plugin.store(first.site, quantized).tensors
        kept = {role: self._sink(tensor, f"{first.site.weight}.{role}") for role, tensor in tensors.items()}
        fused = count()
        for decision in decisions:
            # onnxruntime fuses a DequantizeLinear into a MatMul only if nobody else reads its initializer, so every
            # further matmul gets a name of its own for the same bytes; gathers may share.
            copy = next(fused) if decision.site.kind != "gather" else 0
            name = decision.site.node
            values = {role: _initializer(self._nodes[name], tensor, copy) for role, tensor in kept.items()}
            if name in biases:
                values |= _stored_bias(self._nodes[name], biases[name], quantized, self._sink)
            _replace(self._graph, self._nodes[name], decision, values, self._plan, self._registry)
            self.decisions[name], self.sqnr[name], self.stored[name] = decision, damage, 0
        self.stored[first.site.node] = sum(tensor.nbytes for tensor in tensors.values())
        if damage < _LEAST_SQNR and first.scheme.bits >= 3:
            self.warnings.append(
                f"'{first.site.node}': quantization destroys its weight ({damage:.1f} dB at {first.scheme.bits} bits); "
                "give it more bits or smaller blocks by --override, or keep it float with --skip"
            )

    def _with_scales(self, decisions: Sequence[Decision], weight: FloatArray) -> Sequence[Decision]:
        """The decisions, with float32 scales where float16 cannot hold the largest one.

        Not in float16 models: there the weight is dequantized in float16, whatever its scales are stored in.
        """
        first, half = decisions[0], np.finfo(np.float16)
        scale = largest_scale(weight, first.scheme)
        if first.scheme.scale_type == "FLOAT" or first.site.dtype == "FLOAT16" or scale == 0.0:
            return decisions
        if float(half.smallest_normal) <= scale <= float(half.max):
            return decisions
        self.warnings.append(
            f"'{first.site.node}': its scales (up to {scale:.3g}) are stored as float32, beyond "
            f"{half.smallest_normal:.2g}..{half.max:.5g}, where float16 is exact enough"
        )
        scheme = replace(first.scheme, scale_type="FLOAT")
        changed = []
        for decision in decisions:
            with self._registry.format(decision.format).guarded(decision.site.node) as plugin:
                resident = plugin.resident_bits(decision.site, scheme)
            changed.append(replace(decision, scheme=scheme, resident_bits=resident))
        return changed


def _bias(graph: ir.Model, plan: Plan, decision: Decision) -> Bias | None:
    """What an integer kernel adds to its sums; None for other nodes, and for those without a bias."""
    integer = plan.integer(decision.site.node)
    if integer is None or not integer.adds_bias or (integer.bias is None and not plan.bias_correction):
        return None
    scale = plan.activation(integer.inputs[0]).scale
    if integer.bias is None:  # room for what its rounded weights will be off by
        return Bias(np.zeros(decision.site.n, np.float32), scale)
    tensor = graph.graph.initializers[integer.bias].const_value
    assert tensor is not None
    return Bias(tensor.numpy().astype(np.float32), scale)


def _stored_bias(node: ir.Node, bias: Bias, quantized: QuantizedWeight, sink: TensorSink) -> dict[str, ir.Value]:
    codes, scales = quantize_bias(bias, quantized)
    tensors: dict[str, ir.TensorProtocol] = {
        "bias": ir.Tensor(codes, dtype=ir.DataType.INT32),
        "bias_scales": ir.Tensor(scales, dtype=ir.DataType.FLOAT),
    }
    return {role: _initializer(node, sink(tensor, f"{node.name}.{role}"), 0) for role, tensor in tensors.items()}


def _quantize(
    weight: FloatArray, decision: Decision, registry: Registry, evidence: Sequence[WeightEvidence]
) -> QuantizedWeight:
    if decision.given is not None and decision.given.reproduces(weight):
        return decision.given.quantize(weight, decision.scheme)
    method = registry.weight_quantizer(decision.method)
    with method.guarded(decision.site.node) as plugin:
        quantized = quantize_groups(plugin, weight, decision.scheme, evidence)
    problem = nonsense(weight, quantized, decision.scheme)
    if problem is not None:
        raise method.error(decision.site.node, f"returned nonsense: {problem}")
    return quantized


def _sqnr(weight: FloatArray, approximation: FloatArray) -> float:
    """10 log10(sum w^2 / sum (w - w')^2) in dB."""
    unit = float(np.abs(weight).max(initial=0)) or 1.0  # so that no square overflows or vanishes
    weight = weight / np.float32(unit)
    difference = approximation / np.float32(unit) - weight
    signal, noise = float(np.vdot(weight, weight)), float(np.vdot(difference, difference))
    if noise == 0.0:
        return float("inf")
    return float(10 * np.log10(signal / noise)) if signal > 0 else float("-inf")


def _initializer(node: ir.Node, tensor: ir.TensorProtocol, copy: int) -> ir.Value:
    """The initializer for a stored tensor in the node's own scope.

    onnxruntime cannot create a session when the weight of a DequantizeLinear inside an If branch lies in the
    outer scope, so a weight is registered where it is read.
    """
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    wanted = f"{tensor.name}.{copy + 1}" if copy else str(tensor.name)
    name, variant = wanted, 1
    while name in graph.initializers and graph.initializers[name].const_value is not tensor:
        variant += 1  # taken by another tensor, e.g. of a weight that is read both by rows and by columns
        name = f"{wanted}_{variant}"
    if name not in graph.initializers:
        graph.register_initializer(
            ir.Value(
                name=name, shape=ir.Shape(tensor.shape.numpy()), type=ir.TensorType(tensor.dtype), const_value=tensor
            )
        )
    return graph.initializers[name]


def _replace(
    graph: ir.Model,
    node: ir.Node,
    decision: Decision,
    weight: Mapping[str, ir.Value],
    plan: Plan,
    registry: Registry,
) -> None:
    site, form = decision.site, registry.format(decision.format)
    position = 0 if site.kind == "gather" else 1
    inputs = tuple(value for index, value in enumerate(node.inputs) if index != position and value is not None)
    placement = Placement(
        site=site,
        inputs=inputs,
        weight=weight,
        attributes=node.attributes,
        scheme=decision.scheme,
        dtype=ir.DataType[site.dtype],
        compute=plan.compute,
        opset=graph.graph.opset_imports[""],
    )
    with form.guarded(site.node) as plugin:
        replacement = plugin.place(placement)
    if not isinstance(replacement, Replacement) or not replacement.nodes:
        raise form.error(site.node, f"returned nonsense: {replacement!r} instead of a Replacement with nodes")
    for function in replacement.functions:
        known = graph.functions.get(function.identifier())
        # Bodies of one name differ only by added casts; the longer one serves every type.
        if known is None or len(function.graph) > len(known.graph):
            graph.functions[function.identifier()] = function
    for new_node in replacement.nodes:
        graph.graph.opset_imports.setdefault(new_node.domain, new_node.version or 1)
    owner, old, new = node.graph, node.outputs[0], replacement.nodes[-1].outputs[0]
    assert isinstance(owner, ir.Graph)
    owner.insert_before(node, list(replacement.nodes))
    for index, extra in enumerate(replacement.nodes[:-1]):
        number = f"_{index + 1}" if index else ""
        extra.name = f"{site.node}/{extra.op_type}{number}"
        for place, value in enumerate(extra.outputs):
            value.name = f"{site.output}_{extra.op_type.lower()}{number}" + (f".{place}" if place else "")
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    name, old.name = old.name, None
    new.name, new.type, new.shape = name, old.type, old.shape
    owner.remove(node, safe=True)
    replacement.nodes[-1].name = site.node
