"""Decide: every choice of a conversion is made here, and written down as a Plan.

1. A weight gets one scheme, whoever reads it: a table and the head tied to it are decided together.
2. Tables (and heads tied to them) follow `table_bits`, convolutions are int8 per channel, matmuls follow `bits`.
3. Overrides are laid over that in order; `skip` wins over all.
4. Where a format cannot write the wished width, the next one that it can is taken, with a warning.
5. `auto` writes matmuls and tables in the packed format, and leaves convolutions float.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from onnxq.errors import RecipeError
from onnxq.model import Model
from onnxq.plugin.contracts import Format
from onnxq.plugin.registry import Plugin, Registry
from onnxq.recipe import Recipe
from onnxq.scheme import BITS, Scheme
from onnxq.survey import Site, Skip, Survey

__all__ = ["Decision", "Plan", "decide", "needed_opset"]

_DEFAULT_TABLE_BLOCK = 32


@dataclass(frozen=True, slots=True)
class Decision:
    """What one site becomes.

    Attributes:
        site: where.
        scheme: number format of its weight.
        method: weight quantizer plugin.
        format: format plugin.
        kernel: operator expected in stock onnxruntime's optimised graph.
        resident_bits: bits per weight that stock onnxruntime will hold in memory.
    """

    site: Site
    scheme: Scheme
    method: str
    format: str
    kernel: str
    resident_bits: float


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
    """

    fingerprint: str
    opset: int
    compute: str
    target: str
    decisions: tuple[Decision, ...]
    skips: tuple[Skip, ...]
    warnings: tuple[str, ...] = ()


def needed_opset(recipe: Recipe) -> int:
    """Default-domain opset that the widths of a recipe need: 21 for 4-bit and blocked types, 25 for 2-bit."""
    return 25 if 2 in recipe.all_bits else 21


def decide(model: Model, survey: Survey, recipe: Recipe, registry: Registry) -> Plan:
    """Make every choice.

    Raises:
        RecipeError: a method or format that is not installed, or one that cannot write what was asked for.
    """
    forced = recipe.format != "auto"
    format_name = recipe.format if forced else "packed"
    form = registry.format(format_name)
    registry.weight_quantizer(recipe.method)
    kept_float = {skip.weight: skip for skip in survey.skips}
    decisions: list[Decision] = []
    skips = list(survey.skips)
    warnings = _unmatched(recipe, survey)
    by_weight = sorted(survey.sites, key=lambda site: site.storage)
    for _, group in groupby(by_weight, key=lambda site: site.storage):
        sites = list(group)
        reason = _reason_to_skip(sites, recipe, forced=forced)
        if reason is None and sites[0].weight in kept_float:
            reason = f"'{kept_float[sites[0].weight].node}' reads the same weight in float"
        if reason is not None:
            skips.extend(_skip(site, reason) for site in sites)
            continue
        scheme, method = _choose(sites, recipe)
        registry.weight_quantizer(method)
        scheme, warning = _accepted(sites, scheme, form)
        warnings += [warning] if warning else []
        for site in sites:
            with form.guarded(site.node) as plugin:
                kernel, resident = plugin.kernel(site, scheme), plugin.resident_bits(site, scheme)
            decisions.append(Decision(site, scheme, method, format_name, kernel, resident))
    order = {site.node: index for index, site in enumerate(survey.sites)}
    return Plan(
        fingerprint=model.fingerprint,
        opset=needed_opset(recipe),
        compute=recipe.compute,
        target=recipe.target,
        decisions=tuple(sorted(decisions, key=lambda decision: order[decision.site.node])),
        skips=tuple(skips),
        warnings=tuple(warnings),
    )


def _reason_to_skip(sites: Sequence[Site], recipe: Recipe, *, forced: bool) -> str | None:
    for pattern in recipe.skip:
        for site in sites:
            if re.search(pattern, site.node):
                shared = "" if len(sites) == 1 else f" (weight shared by {len(sites)} nodes)"
                return f"--skip {pattern}{shared}"
    if recipe.table_bits == "float" and any(site.kind in ("gather", "matmul_transposed") for site in sites):
        return "--table-bits float"
    if sites[0].kind == "conv" and not forced:
        return "a convolution: packing saves space but no time; --format packed does it anyway"
    return None


def _choose(sites: Sequence[Site], recipe: Recipe) -> tuple[Scheme, str]:
    """Scheme and method of a weight that all `sites` read."""
    kind = sites[0].kind
    table = kind in ("gather", "matmul_transposed")
    bits = int(recipe.table_bits) if table else recipe.bits
    block_size, symmetric, method = recipe.block_size, recipe.symmetric, recipe.method
    for rule in recipe.override:
        if any(re.search(rule.nodes, site.node) for site in sites):
            bits = rule.bits if rule.bits is not None else bits
            block_size = rule.block_size if rule.block_size is not None else block_size
            symmetric = rule.symmetric if rule.symmetric is not None else symmetric
            method = rule.method if rule.method is not None else method
    if kind == "conv":  # onnxruntime unpacks it to float: only int8 per channel is worth its error
        return Scheme(bits=8, symmetric=True, granularity="per_axis"), method
    if symmetric is None:  # at 8 bits a zero point buys nothing; at 4 and 2 it buys half a bit
        symmetric = bits == 8
    if block_size == "channel" and table:
        block_size = _DEFAULT_TABLE_BLOCK
    if block_size == "channel":
        return Scheme(bits=bits, symmetric=symmetric, granularity="per_axis"), method
    return Scheme(bits=bits, symmetric=symmetric, block_size=block_size), method


def _accepted(sites: Sequence[Site], scheme: Scheme, form: Plugin[Format]) -> tuple[Scheme, str | None]:
    """The scheme, or twice its bits with a warning, whichever the format can write for all sites of a weight."""
    for site in sites:
        with form.guarded(site.node) as plugin:
            refusal = plugin.refuses(site, scheme)
            if refusal is None:
                continue
            wider = replace(scheme, bits=2 * scheme.bits) if scheme.bits < max(BITS) else scheme
            if any(plugin.refuses(other, wider) for other in sites):
                raise RecipeError(f"{site.op_type} '{site.node}': {refusal}")
            return wider, f"'{site.node}' gets {wider.bits} bits: {refusal}"
    return scheme, None


def _skip(site: Site, reason: str) -> Skip:
    return Skip(site.node, site.op_type, site.weight, site.elements, site.float_bytes, reason)


def _unmatched(recipe: Recipe, survey: Survey) -> list[str]:
    names = [site.node for site in survey.sites] + [skip.node for skip in survey.skips]
    wishes = [("--skip", pattern) for pattern in recipe.skip]
    wishes += [("--override", rule.nodes) for rule in recipe.override]
    return [
        f"{flag} '{pattern}' matches no node with a weight; names are listed by onnxq inspect"
        for flag, pattern in wishes
        if not any(re.search(pattern, name) for name in names)
    ]
