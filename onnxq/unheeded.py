"""Unheeded: wishes of a recipe that have no effect on this model, or less than was asked for, as warnings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

import onnx_ir as ir

from onnxq.model import Model
from onnxq.qdq.activations import ActivationDecision
from onnxq.qdq.layout import Layout
from onnxq.recipe import Override, Recipe
from onnxq.scheme import Scheme
from onnxq.survey import Site, Survey

__all__ = ["Decided", "about_activations", "about_layout", "unmatched"]

_OF_INTEGER_NODES = (
    "activation_bits",
    "activation_signed",
    "activation_symmetric",
    "per_channel",
    "calibrator",
    "bias_correction",
    "reduce_range",
    "integer_nodes",
)
"""Keys of a recipe that only nodes on integer codes heed."""

_OF_DYNAMIC_ONES = ("per_channel", "reduce_range")
"""Those of them that format dynamic heeds too."""


class Decided(Protocol):
    """What is needed of a Decision."""

    @property
    def site(self) -> Site: ...
    @property
    def scheme(self) -> Scheme: ...
    @property
    def format(self) -> str: ...


def unmatched(model: Model, survey: Survey, recipe: Recipe, layout: Layout) -> list[str]:
    """Patterns that find no node which they could change."""
    heeding = {site.node for site in survey.sites} | {skip.node for skip in survey.skips}
    heeding |= {integer.node for integer in layout.integers} | {node.node for node in layout.floats}
    names = {node.name or "" for node in ir.traversal.RecursiveGraphIterator(model.ir.graph)}
    wishes = [("--skip", pattern) for pattern in recipe.skip]
    wishes += [("--override", rule.nodes) for rule in recipe.override]
    warnings = []
    for flag, pattern in wishes:
        if any(re.search(pattern, name) for name in heeding):
            continue
        others = sorted(name for name in names if re.search(pattern, name))
        only = f", only '{others[0]}'" + (f" and {len(others) - 1} more" if others[1:] else "") if others else ""
        warnings.append(f"{flag} '{pattern}' matches no node with a weight{only}; names are listed by onnxq inspect")
    return warnings


def about_layout(decision: Decided, rule: Override, recipe: Recipe) -> list[str]:
    """Wishes for one weight that the place it is in rules out.

    Args:
        decision: what it became.
        rule: all overrides for it in one.
        recipe: of the whole model.
    """
    site, scheme = decision.site, decision.scheme
    block_size = recipe.block_size if rule.block_size is None else rule.block_size
    if site.kind in ("gather", "matmul_transposed"):
        if block_size != "channel" or scheme.granularity != "blocked":
            return []
        return [f"'{site.node}': tables are packed in blocks, block_size channel becomes {scheme.block_size}"]
    integers = decision.format in ("qdq", "dynamic")
    if site.kind != "conv" and not integers:
        return []
    dropped = [f"bits:{rule.bits}"] if rule.bits not in (None, scheme.bits) else []
    dropped += [f"block_size:{rule.block_size}"] if rule.block_size not in (None, "channel") else []
    dropped += ["symmetric:false"] if rule.symmetric is False and scheme.symmetric else []
    if not dropped:
        return []
    where = "integer kernels" if integers else "convolutions"
    return [f"'{site.node}': {', '.join(dropped)} has no effect, {where} take {scheme} weights only"]


def about_activations(activations: Sequence[ActivationDecision], recipe: Recipe, layout: Layout) -> list[str]:
    """Wishes for activations that no node heeds, or that cost more than they seem to."""
    if any(decision.format.bits == 16 for decision in activations):
        return ["16-bit activations: onnxruntime's CPU has no integer kernels for them and computes in float"]
    if layout.integers:
        return []
    defaults = Recipe()
    idle = [key for key in _OF_INTEGER_NODES if recipe.format != "dynamic" or key not in _OF_DYNAMIC_ONES]
    wished = [key for key in idle if getattr(recipe, key) != getattr(defaults, key)]
    for rule in recipe.override:
        wished += [key for key in idle if getattr(rule, key, None) is not None]
    if not wished:
        return []
    return [f"no node runs on integer codes: {', '.join(dict.fromkeys(wished))} has no effect"]
