"""Rewrite: carry out a Plan on a clone of the graph. It makes no choice of its own.

Weights go one at a time: read, quantized by the planned plugin, checked, written straight to the output's data
file, forgotten. Memory holds one weight at a time, whatever the size of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from onnxq import ops
from onnxq.affine import FloatArray, QuantizedWeight, dequantize
from onnxq.decide import Decision, Plan
from onnxq.errors import PlanError
from onnxq.fusion_guards import guard_fusions, guard_gathers
from onnxq.model import Model
from onnxq.plugin.contracts import Placement, Replacement, WeightEvidence
from onnxq.plugin.registry import Registry
from onnxq.qdq.bias import Bias, quantize_bias, with_headroom
from onnxq.qdq.insert import insert_activations
from onnxq.survey import Site, find_nodes

__all__ = ["Rewritten", "TensorSink", "rewrite"]

TensorSink = Callable[[ir.TensorProtocol, str], ir.TensorProtocol]
"""Takes a tensor and its name, stores it, and returns the tensor to put into the graph instead."""


@dataclass(frozen=True, slots=True)
class Rewritten:
    """The quantized graph and what quantizing did to each weight.

    Attributes:
        model: the new Model; packed tensors are where the sink put them.
        weight_sqnr: dB of weight energy over quantization error, by node name (inf: no error).
        stored_bytes: bytes that each node's weight takes in the file, by node name; a weight shared by
            several nodes counts at its first one.
    """

    model: Model
    weight_sqnr: Mapping[str, float]
    stored_bytes: Mapping[str, int]


def rewrite(
    model: Model,
    plan: Plan,
    registry: Registry,
    *,
    sink: TensorSink,
    evidence_of: Callable[[str], WeightEvidence | None] = lambda node: None,
    on_weight: Callable[[Decision], None] = lambda decision: None,
) -> Rewritten:
    """Put quantized weights and the planned nodes into a clone of a normalised model.

    Args:
        model: normalised; left untouched.
        plan: made for it.
        registry: where the planned plugins are.
        sink: stores each packed tensor.
        evidence_of: what calibration saw at a node's input, for weight quantizers that ask for it.
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
    nodes = find_nodes(graph)
    sqnr: dict[str, float] = {}
    stored: dict[str, int] = {}
    for decisions in _by_weight(plan):
        on_weight(decisions[0])
        evidence = evidence_of(decisions[0].site.node)
        damage, size = _rewrite_weight(graph, nodes, decisions, plan, registry, sink, evidence)
        for index, decision in enumerate(decisions):
            sqnr[decision.site.node] = damage
            stored[decision.site.node] = size if index == 0 else 0
    insert_activations(graph, plan.integers, plan.activations)
    packed = [node for node in graph.graph.all_nodes() if node.domain == ops.DOMAIN]
    guard_fusions(packed)
    guard_gathers(packed)
    common.RemoveUnusedNodesPass()(graph)
    if graph.functions:
        graph.graph.opset_imports[ops.DOMAIN] = ops.VERSION
    return Rewritten(Model(model.path, graph, model.fingerprint, model.custom_op_libraries), sqnr, stored)


def _by_weight(plan: Plan) -> list[list[Decision]]:
    groups: dict[tuple[str, str, str], list[Decision]] = {}
    for decision in plan.decisions:
        groups.setdefault(decision.site.storage, []).append(decision)
    return list(groups.values())


def _rewrite_weight(
    graph: ir.Model,
    nodes: Mapping[str, ir.Node],
    decisions: Sequence[Decision],
    plan: Plan,
    registry: Registry,
    sink: TensorSink,
    evidence: WeightEvidence | None,
) -> tuple[float, int]:
    """Quantize one weight and replace every node that reads it; returns (SQNR in dB, stored bytes)."""
    first = decisions[0]
    weight = _read_weight(nodes, first.site)
    quantized = _quantize(weight, first, registry, evidence)
    biases = {decision.site.node: bias for decision in decisions if (bias := _bias(graph, plan, decision)) is not None}
    quantized = with_headroom(weight, quantized, list(biases.values()))
    damage = _sqnr(weight, dequantize(quantized))
    form = registry.format(first.format)
    with form.guarded(first.site.node) as plugin:
        tensors = plugin.store(first.site, quantized).tensors
    kept = {role: sink(tensor, f"{first.site.weight}.{role}") for role, tensor in tensors.items()}
    fused = count()
    for decision in decisions:
        # onnxruntime fuses a DequantizeLinear into a MatMul only if nobody else reads its initializer, so every
        # further matmul gets a name of its own for the same bytes; gathers may share.
        copy = next(fused) if decision.site.kind != "gather" else 0
        node = nodes[decision.site.node]
        values = {role: _initializer(node, tensor, copy) for role, tensor in kept.items()}
        if decision.site.node in biases:
            values |= _stored_bias(node, biases[decision.site.node], quantized, sink)
        _replace(graph, node, decision, values, plan, registry)
    return damage, sum(tensor.nbytes for tensor in tensors.values())


def _bias(graph: ir.Model, plan: Plan, decision: Decision) -> Bias | None:
    """What an integer kernel adds to its sums; None for other nodes, and for those without a bias."""
    integer = plan.integer(decision.site.node)
    if integer is None or integer.bias is None:
        return None
    tensor = graph.graph.initializers[integer.bias].const_value
    assert tensor is not None
    return Bias(tensor.numpy().astype(np.float32), plan.activation(integer.inputs[0]).scale)


def _stored_bias(node: ir.Node, bias: Bias, quantized: QuantizedWeight, sink: TensorSink) -> dict[str, ir.Value]:
    codes, scales = quantize_bias(bias, quantized)
    tensors: dict[str, ir.TensorProtocol] = {
        "bias": ir.Tensor(codes, dtype=ir.DataType.INT32),
        "bias_scales": ir.Tensor(scales, dtype=ir.DataType.FLOAT),
    }
    return {role: _initializer(node, sink(tensor, f"{node.name}.{role}"), 0) for role, tensor in tensors.items()}


def _read_weight(nodes: Mapping[str, ir.Node], site: Site) -> FloatArray:
    """The weight as read-only float32 [K, N]."""
    tensor = _weight_value(nodes[site.node], site).const_value
    assert tensor is not None
    array = tensor.numpy().astype(np.float32)
    if site.kind == "conv":
        array = array.reshape(array.shape[0], -1)
    if site.kind != "matmul":
        array = array.T
    if not np.isfinite(array).all():
        bad = int(np.size(array) - np.isfinite(array).sum())
        raise PlanError(
            f"{site.op_type} '{site.node}': weight '{site.weight}' holds {bad} values that are NaN or infinite; "
            f"repair the model or keep it float with --skip '{site.node}'"
        )
    array.flags.writeable = False
    return array


def _weight_value(node: ir.Node, site: Site) -> ir.Value:
    value = node.inputs[0 if site.kind == "gather" else 1]
    assert value is not None
    if site.kind == "matmul_transposed":
        transpose = value.producer()
        assert transpose is not None
        value = transpose.inputs[0]
        assert value is not None
    return value


def _quantize(
    weight: FloatArray, decision: Decision, registry: Registry, evidence: WeightEvidence | None
) -> QuantizedWeight:
    if decision.given is not None and decision.given.reproduces(weight):
        return decision.given.quantize(weight, decision.scheme)
    method = registry.weight_quantizer(decision.method)
    with method.guarded(decision.site.node) as plugin:
        quantized = plugin.quantize(weight, decision.scheme, evidence)
    problem = _nonsense(weight, quantized, decision)
    if problem is not None:
        raise method.error(decision.site.node, f"returned nonsense: {problem}")
    return quantized


def _nonsense(weight: FloatArray, quantized: QuantizedWeight, decision: Decision) -> str | None:
    """What is wrong with a plugin's answer; None when it keeps its contract."""
    if not isinstance(quantized, QuantizedWeight):
        return f"a {type(quantized).__name__} instead of a QuantizedWeight"
    if (problem := _wrong_types(quantized)) is not None:
        return problem
    scheme = decision.scheme
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


def _sqnr(weight: FloatArray, approximation: FloatArray) -> float:
    """10 log10(sum w^2 / sum (w - w')^2) in dB."""
    signal = float(np.vdot(weight, weight))
    difference = approximation - weight
    noise = float(np.vdot(difference, difference))
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
    owner, old, new = node.graph, node.outputs[0], replacement.nodes[-1].outputs[0]
    assert isinstance(owner, ir.Graph)
    owner.insert_before(node, list(replacement.nodes))
    for index, extra in enumerate(replacement.nodes[:-1]):
        number = f"_{index + 1}" if index else ""
        extra.name = f"{site.node}/{extra.op_type}{number}"
        extra.outputs[0].name = f"{site.output}_{extra.op_type.lower()}{number}"
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    name, old.name = old.name, None
    new.name, new.type, new.shape = name, old.type, old.shape
    owner.remove(node, safe=True)
    replacement.nodes[-1].name = site.node
