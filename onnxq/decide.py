"""Decide: every choice of a conversion is made here, and written down as a Plan.

1. A weight gets one scheme, whoever reads it: a table and the head tied to it are decided together.
2. Tables (and heads tied to them) follow `table_bits`, convolutions are int8 per channel, matmuls follow `bits`.
3. Overrides are laid over that in order; `skip` wins over all.
4. Where a format cannot write the wished width, the next one that it can is taken, with a warning.
5. What the layout of integer nodes takes up (see onnxq.qdq) is written as qdq, 8 bits per channel. Beside it, `auto`
   packs matmuls and tables (in a convolutional network only tables), and leaves convolutions float. For CUDA see
   onnxq.cuda_target.
6. Every activation that becomes codes gets its scale and zero point here, from the evidence.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from onnxq.acceptance import acceptable, accepted
from onnxq.cuda_target import ON_CUDA, WHY_CONVOLUTIONS_STAY_FLOAT, about_cuda, block_size_for
from onnxq.errors import RecipeError
from onnxq.evidence import Evidence
from onnxq.model import Model
from onnxq.plugin.registry import Registry
from onnxq.processor import saturates
from onnxq.qdq.activations import ActivationDecision
from onnxq.qdq.layout import FloatNode, IntegerNode, Layout
from onnxq.qdq.outline import integer_layout, is_convolutional
from onnxq.qdq.ranges import decide_activations, unobserved_readers, wishes_for
from onnxq.qdq.trained import NOTHING, Trained, TrainedWeight
from onnxq.recipe import Override, Recipe
from onnxq.scheme import Granularity, Scheme
from onnxq.shared_kernels import shared_kernels
from onnxq.survey import MIN_ELEMENTS, Site, Skip, Survey
from onnxq.unheeded import about_activations, about_layout, unmatched

__all__ = ["Decision", "Plan", "decide", "needed_opset"]

_DEFAULT_TABLE_BLOCK = 32

_INTEGER_METHOD = "mse"
"""Weights of integer kernels, unless another method is asked for: whole channels share a scale, and cutting their
outliers gained 0.7 dB at the logits of EfficientNet-Lite0 where blocks of 32 gain next to nothing."""

_INTEGER_METHOD_WITH_DATA = "gptq"
"""The same, with data to weigh errors by: 5.7 dB more there (weights alone, 26.4 dB against 20.7)."""

_OF_INTEGER_KERNELS = ("qdq", "dynamic")
"""Formats whose weights are multiplied by codes: 8 bits per channel, whatever `bits` and `block_size` say."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What one site becomes.

    Attributes:
        site: where.
        scheme: number format of its weight.
        method: weight quantizer plugin.
        format: format plugin.
        kernel: operator expected in stock onnxruntime's optimised graph; "OP on CUDA" for that target.
        resident_bits: bits per weight that stock onnxruntime will hold in memory.
        given: scales that the model was trained with, used instead of the method's.
    """

    site: Site
    scheme: Scheme
    method: str
    format: str
    kernel: str
    resident_bits: float
    given: TrainedWeight | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """All decisions of a conversion.

    Attributes:
        fingerprint: of the model it was made for.
        opset: default-domain opset the decisions need.
        compute: what kernels may do with activations.
        target: where the model will run.
        decisions: one per site to quantize, in graph order.
        skips: one per weight left as it is.
        warnings: wishes that had no effect.
        integers: nodes that run on integer codes, with the kernel each is expected to get.
        floats: nodes that stay float although others run on codes, with the reason; empty when none does.
        activations: scale and zero point of every tensor that becomes codes; empty without evidence.
        reduce_range: integer weights keep to 7 bits.
        bias_correction: biases of integer kernels make up for the mean error of their rounded weights.
        calibration: what the ranges come from, in words; "" without evidence.
    """

    fingerprint: str
    opset: int
    compute: str
    target: str
    decisions: tuple[Decision, ...]
    skips: tuple[Skip, ...]
    warnings: tuple[str, ...] = ()
    integers: tuple[IntegerNode, ...] = ()
    floats: tuple[FloatNode, ...] = ()
    activations: tuple[ActivationDecision, ...] = ()
    reduce_range: bool = False
    bias_correction: bool = False
    calibration: str = ""

    def integer(self, node: str) -> IntegerNode | None:
        """The integer node of this name."""
        return next((integer for integer in self.integers if integer.node == node), None)

    def activation(self, tensor: str) -> ActivationDecision:
        """How this tensor becomes codes; a KeyError if it does not."""
        for decision in self.activations:
            if decision.tensor == tensor:
                return decision
        raise KeyError(tensor)


def needed_opset(recipe: Recipe) -> int:
    """Default-domain opset that the widths of a recipe need: 21 for 4-bit and blocked types, 25 for 2-bit.

    The format matmulnbits is for old versions of onnxruntime and uses no such type; 17 is what the rules of
    onnxq.normalise are used to at least.
    """
    if recipe.format == "matmulnbits":
        return 17
    return 25 if 2 in recipe.all_bits else 21


def decide(
    model: Model,
    survey: Survey,
    recipe: Recipe,
    registry: Registry,
    evidence: Evidence | None = None,
    *,
    trained: Trained = NOTHING,
    data: bool = False,
) -> Plan:
    """Make every choice.

    Args:
        model: normalised.
        survey: of it.
        recipe: what the user asked for.
        registry: where the plugins are.
        evidence: ranges of the activations; without it the plan shows what would be done, but cannot be carried out
            where it has integer nodes.
        trained: scales that the model brings along.
        data: real batches will be there when the weights are quantized.
    Raises:
        RecipeError: a method or format that is not installed, or one that cannot write what was asked for.
    """
    registry.format("packed" if recipe.format == "auto" else recipe.format)
    registry.weight_quantizer(recipe.method)
    layout = integer_layout(model, survey, recipe, trained=trained)
    known = evidence is not None or not wishes_for(layout, recipe, trained)
    if known and (barred := unobserved_readers(layout, evidence, trained)):
        layout = integer_layout(model, survey, recipe, trained=trained, unobserved=barred)
    choice = _Choice(
        recipe, registry, layout, trained, convolutional=bool(trained) or is_convolutional(survey), data=data
    )
    decisions, skips, warnings = _weights(survey, choice)
    shared = shared_kernels(model.ir, {made.site.node: made.format for made in decisions}, registry)
    decisions = [replace(made, kernel=shared.get(made.site.node, made.kernel)) for made in decisions]
    order = {site.node: index for index, site in enumerate(survey.sites)}
    activations = decide_activations(layout, model.ir.graph, recipe, evidence, trained) if known else ()
    return Plan(
        fingerprint=model.fingerprint,
        opset=needed_opset(recipe),
        compute=recipe.compute,
        target=recipe.target,
        decisions=tuple(sorted(decisions, key=lambda decision: order[decision.site.node])),
        skips=(*survey.skips, *skips),
        warnings=(
            *unmatched(model, survey, recipe, layout),
            *warnings,
            *about_activations(activations, recipe, layout),
            *(about_cuda(decisions, trained=bool(trained)) if recipe.target == "cuda" else ()),
        ),
        integers=layout.integers,
        floats=layout.floats if layout.integers else (),
        activations=activations,
        reduce_range=choice.reduce_range,
        bias_correction=data if recipe.bias_correction is None else recipe.bias_correction,
        calibration=_origin(activations, evidence),
    )


class _Choice:
    """What the choice for one weight depends on."""

    def __init__(
        self, recipe: Recipe, registry: Registry, layout: Layout, trained: Trained, *, convolutional: bool, data: bool
    ) -> None:
        self.recipe = recipe
        self.trained = trained
        self.registry = registry
        self.integers = {integer.node: integer for integer in layout.integers}
        self.floats = {node.node: node.reason for node in layout.floats}
        self.convolutional = convolutional
        self.integer_method = _INTEGER_METHOD_WITH_DATA if data else _INTEGER_METHOD
        self.reduce_range = (bool(self.integers) or recipe.format == "dynamic") and _reduces_range(recipe)

    def format(self, sites: Sequence[Site]) -> str | None:
        """Name of the format of a weight; None when it stays float."""
        if all(site.node in self.integers for site in sites):
            return "qdq"
        kind, wanted = sites[0].kind, self.recipe.format
        if _takes_codebook(sites, self.recipe):
            return "codebook"
        if wanted not in ("auto", "qdq", "dynamic"):
            return wanted
        table = kind in ("gather", "matmul_transposed")
        if wanted == "dynamic":
            return "packed" if table else "dynamic" if kind == "matmul" else None
        packs = table or (wanted == "auto" and kind == "matmul" and not (self.convolutional and self.floats))
        return "packed" if packs else None

    def refusal(self, sites: Sequence[Site], name: str) -> str | None:
        """Why a table or convolution stays float in a format that is for matmuls; a matmul that it cannot write is
        an error, since the wish for it then makes no sense."""
        if sites[0].kind == "matmul":
            return None
        possible, refusals = acceptable(sites, _choose(sites, self.recipe)[0], self.registry.format(name))
        return None if possible else refusals[0][1]

    def why_float(self, site: Site) -> str:
        """Why a weight that no format takes stays float."""
        if site.node in self.floats:
            return self.floats[site.node]
        if site.kind == "conv" and self.recipe.target == "cuda":
            return WHY_CONVOLUTIONS_STAY_FLOAT
        if site.kind == "conv" and self.recipe.format == "dynamic":
            return "a convolution: onnxruntime has no fast kernel for it with dynamic activations; see --format qdq"
        if site.kind == "conv":
            return (
                "a convolution beside matrix products: --format qdq runs it on integers, --format packed only packs it"
            )
        return "no integer kernel takes it"


def _weights(survey: Survey, choice: _Choice) -> tuple[list[Decision], list[Skip], list[str]]:
    """A decision for each site, or a skip; weight by weight, since all readers of one are decided together."""
    kept_float = {(skip.scope, skip.weight): skip for skip in survey.skips}
    decisions: list[Decision] = []
    skips: list[Skip] = []
    warnings: list[str] = []
    by_weight = sorted(survey.sites, key=lambda site: site.storage)
    for _, group in groupby(by_weight, key=lambda site: site.storage):
        sites = list(group)
        name = choice.format(sites)
        reason = _reason_to_skip(sites, choice.recipe)
        if reason is None and (float_reader := kept_float.get((sites[0].scope, sites[0].weight))) is not None:
            reason = f"'{float_reader.node}' reads the same weight in float"
        if reason is None and name is None:
            reason = choice.why_float(sites[0])
        if reason is None and name not in (None, *_OF_INTEGER_KERNELS):
            reason = choice.refusal(sites, name)
        if reason is not None or name is None:
            skips.extend(_skip(site, reason or "") for site in sites if site.elements >= MIN_ELEMENTS)
        elif name == "qdq" or sites[0].elements >= MIN_ELEMENTS:
            found, warning = _decisions(sites, name, choice)
            decisions += found
            warnings += [warning] if warning else []
            warnings += about_layout(found[0], _override(sites, choice.recipe), choice.recipe)
    return decisions, skips, warnings


def _decisions(sites: Sequence[Site], name: str, choice: _Choice) -> tuple[list[Decision], str | None]:
    """The decisions for one weight that all `sites` read."""
    form = choice.registry.format(name)
    scheme, method = _choose(sites, choice.recipe)
    choice.registry.weight_quantizer(method)
    given = None
    if name in _OF_INTEGER_KERNELS:
        given = choice.trained.weight(sites[0].weight) if name == "qdq" else None
        scheme = _integer_scheme(choice.recipe, sites, given, reduced=choice.reduce_range)
        if method == "rtn" and "method" not in choice.recipe.model_fields_set:
            method = choice.integer_method if name == "qdq" else _INTEGER_METHOD
    scheme, warning = accepted(sites, scheme, form)
    decisions = []
    for site in sites:
        with form.guarded(site.node) as plugin:
            kernel, resident = plugin.kernel(site, scheme), plugin.resident_bits(site, scheme)
        if site.node in choice.integers:
            kernel = choice.integers[site.node].kernel
        if choice.recipe.target == "cuda":
            kernel += ON_CUDA
        decisions.append(Decision(site, scheme, method, name, kernel, resident, given))
    return decisions, warning


def _integer_scheme(recipe: Recipe, sites: Sequence[Site], given: TrainedWeight | None, *, reduced: bool) -> Scheme:
    """8 bits per output channel; one scale in all when asked for, or with zero points, which kernels want alike."""
    if given is not None:
        trained_granularity: Granularity = "per_axis" if len(given.scales) > 1 else "per_tensor"
        return Scheme(bits=8, symmetric=not any(given.zero_points), granularity=trained_granularity, scale_type="FLOAT")
    rule = _override(sites, recipe)
    symmetric = (recipe.symmetric if rule.symmetric is None else rule.symmetric) is not False
    granularity: Granularity = "per_axis" if recipe.per_channel and symmetric else "per_tensor"
    return Scheme(bits=8, symmetric=symmetric, granularity=granularity, scale_type="FLOAT", reduced=reduced)


def _reduces_range(recipe: Recipe) -> bool:
    """7-bit weights, when asked for, or when the target may add pairs of u8 x s8 products in 16 bits."""
    if recipe.reduce_range is not None:
        return recipe.reduce_range
    return recipe.target == "portable" or saturates()


def _origin(activations: Sequence[ActivationDecision], evidence: Evidence | None) -> str:
    """Where the ranges come from, in words."""
    trained = sum(decision.reason.startswith("trained") for decision in activations)
    parts = [f"the model's own training ({trained} ranges)"] if trained else []
    if activations and evidence is not None:
        parts.append(f"{evidence.batches} batches of {evidence.data}")
    return ", ".join(parts)


def _reason_to_skip(sites: Sequence[Site], recipe: Recipe) -> str | None:
    for pattern in recipe.skip:
        for site in sites:
            if re.search(pattern, site.node):
                shared = "" if len(sites) == 1 else f" (weight shared by {len(sites)} nodes)"
                return f"--skip {pattern}{shared}"
    asked = any(rule.bits and re.search(rule.nodes, site.node) for rule in recipe.override for site in sites)
    table = any(site.kind in ("gather", "matmul_transposed") for site in sites)
    if recipe.table_bits == "float" and table and not asked:
        return "--table-bits float"
    return None


def _override(sites: Sequence[Site], recipe: Recipe) -> Override:
    """What all overrides that find one of these nodes add up to, later ones laid over earlier ones."""
    wishes: dict[str, Any] = {}
    for rule in recipe.override:
        if any(re.search(rule.nodes, site.node) for site in sites):
            wishes |= {key: wish for key, wish in rule if wish is not None}
    return Override(**{"nodes": "", **wishes})


def _takes_codebook(sites: Sequence[Site], recipe: Recipe) -> bool:
    """Is a codebook asked for, and nothing for these nodes that only integers can give?"""
    rule = _override(sites, recipe)
    integers = rule.bits not in (None, 4) or rule.block_size == "channel" or rule.symmetric is False
    other_method = rule.method not in (None, recipe.codebook)
    return recipe.codebook is not None and sites[0].kind == "matmul" and not integers and not other_method


def _choose(sites: Sequence[Site], recipe: Recipe) -> tuple[Scheme, str]:
    """Scheme and method of a weight that all `sites` read."""
    kind, rule = sites[0].kind, _override(sites, recipe)
    table = kind in ("gather", "matmul_transposed")
    bits = recipe.table_bits if isinstance(recipe.table_bits, int) and table else recipe.bits
    bits = rule.bits if rule.bits is not None else bits
    block_size = rule.block_size if rule.block_size is not None else recipe.block_size
    if recipe.target == "cuda" and rule.block_size is None and "block_size" not in recipe.model_fields_set:
        block_size = block_size_for(sites[0].k)
    symmetric = rule.symmetric if rule.symmetric is not None else recipe.symmetric
    method = rule.method if rule.method is not None else recipe.method
    if recipe.codebook is not None and _takes_codebook(sites, recipe):
        assert block_size != "channel"
        return Scheme(bits=4, symmetric=True, block_size=block_size, codebook=True), recipe.codebook
    if method == recipe.codebook:
        raise RecipeError(
            f"{sites[0].op_type} '{sites[0].node}': {method} gives indices into a codebook, which only "
            "matmul weights in blocks of 4 bits can be; take another method for it"
        )
    if kind == "conv":  # onnxruntime unpacks it to float: only int8 per channel is worth its error
        return Scheme(bits=8, symmetric=True, granularity="per_axis"), method
    if symmetric is None:  # at 6 and 8 bits a zero point buys nothing; at 4 and below it buys half a bit
        symmetric = bits >= 6
    if block_size == "channel" and table:
        block_size = _DEFAULT_TABLE_BLOCK
    if block_size == "channel":
        return Scheme(bits=bits, symmetric=symmetric, granularity="per_axis"), method
    return Scheme(bits=bits, symmetric=symmetric, block_size=block_size), method


def _skip(site: Site, reason: str) -> Skip:
    return Skip(site.node, site.op_type, site.weight, site.elements, site.float_bytes, reason, site.scope)
