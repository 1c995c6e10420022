"""Allotment: bits and blocks for each weight under a budget, chosen among drafts of the plan.

1. `variants`: the recipe at every width and block size that the user left open. A plan of each is a draft, so that
   overrides, skips and what a format cannot write are heeded as in any plan.
2. `units`: weights that are chosen alike, since kernels read or fuse them together: all readers of one weight, and
   the matmuls that read one tensor (q, k and v; gate and up). Their options are what the drafts say of them.
3. `allotted`: the option for each unit that costs least together (see onnxq.budget), put into a plan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from onnxq.budget import Option, cheapest
from onnxq.decide import Decision, Plan
from onnxq.errors import RecipeError
from onnxq.model import Model
from onnxq.recipe import Recipe
from onnxq.scheme import BITS, TABLE_BITS
from onnxq.survey import find_nodes

__all__ = ["Unit", "allotted", "bits_of", "elements_of", "units", "variants"]

_BLOCKS = (32, 128)
"""Block sizes to choose from: 16 costs as much as half a bit more, and 64 and 256 lie close to one of these."""

_METHOD, _METHOD_WITH_DATA = "mse", "gptq"
"""Below 4 bits rounding to nearest loses most of what choosing the bits gains."""

_MOST_FUSED = 6
"""Matmuls of one tensor that are taken for one layer's: q, k, v, gate and up in parallel blocks. The cross-attentions
of all decoder layers read one tensor too, but nothing fuses those."""


@dataclass(frozen=True, slots=True, eq=False)
class Unit:
    """Weights that are chosen alike.

    Attributes:
        options: each the decisions of all its nodes, in graph order; no two have the same schemes.
    """

    options: tuple[tuple[Decision, ...], ...]

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of its nodes."""
        return tuple(decision.site.node for decision in self.options[0])

    def sizes(self) -> tuple[int, ...]:
        """Stored bits of all its weights, for each option."""
        return tuple(bits_of(option) for option in self.options)


def variants(recipe: Recipe, *, data: bool) -> tuple[Recipe, ...]:
    """The recipe at each width and block size to choose from, those with the user's own block size only if given.

    Args:
        recipe: with a budget.
        data: real batches will be there: tables take part, unless their bits were asked for, and the method is one that
            uses the batches, unless one was asked for.
    """
    blocks = (recipe.block_size,) if "block_size" in recipe.model_fields_set else _BLOCKS
    shared: dict[str, object] = {"target_bpw": None, "target_size": None}
    if "method" not in recipe.model_fields_set:
        shared["method"] = _METHOD_WITH_DATA if data else _METHOD
    found = []
    for bits, block_size in product(BITS, blocks):
        wishes = {**shared, "bits": bits, "block_size": block_size}
        if data and "table_bits" not in recipe.model_fields_set and bits in TABLE_BITS:
            wishes["table_bits"] = bits
        found.append(recipe.model_copy(update=wishes))
    return tuple(found)


def units(model: Model, drafts: Sequence[Plan]) -> tuple[Unit, ...]:
    """What can be chosen, in graph order; weights that are the same in all drafts have one option."""
    by_draft = [{decision.site.node: decision for decision in draft.decisions} for draft in drafts]
    found = []
    for members in _tied(model, drafts[0].decisions):
        options: dict[tuple[object, ...], tuple[Decision, ...]] = {}
        for decisions in by_draft:
            option = tuple(decisions[decision.site.node] for decision in members)
            options.setdefault(tuple((decision.scheme, decision.format) for decision in option), option)
        found.append(Unit(tuple(options.values())))
    return tuple(found)


def allotted(base: Plan, costs: Mapping[Unit, Sequence[float]], *, limit: float, wish: str) -> Plan:
    """The base plan with the options that cost least together.

    Args:
        base: gives everything but the decisions.
        costs: of each unit's options.
        limit: stored bits of all weights.
        wish: what set the limit, for errors.
    Raises:
        RecipeError: the smallest options are above the limit.
    """
    items = [
        [Option(size, cost) for size, cost in zip(unit.sizes(), prices, strict=True)] for unit, prices in costs.items()
    ]
    chosen = cheapest(items, int(limit))
    if chosen is None:
        least = sum(min(option.size for option in options) for options in items)
        weights = elements_of(base.decisions)
        raise RecipeError(
            f"{wish}: the smallest that this model and recipe allow is {least / weights:.2f} bits per quantized weight "
            f"({least / 8e6:.1f} MB); ask for that much, or lower --table-bits"
        )
    picked = {
        decision.site.node: decision
        for unit, index in zip(costs, chosen, strict=True)
        for decision in unit.options[index]
    }
    return replace(base, decisions=tuple(picked[decision.site.node] for decision in base.decisions))


def bits_of(decisions: Sequence[Decision]) -> int:
    """Bits that the weights of some decisions take in the file; a weight read by several nodes counts once."""
    stored = {decision.site.storage: decision for decision in decisions}
    return sum(
        round(
            decision.scheme.bits_per_weight(decision.site.k, scale_bits=8 * decision.scheme.scale_dtype.itemsize)
            * decision.site.elements
        )
        for decision in stored.values()
    )


def elements_of(decisions: Sequence[Decision]) -> int:
    """Number of quantized weights; one that several nodes read counts once."""
    return sum({decision.site.storage: decision.site.elements for decision in decisions}.values())


def _tied(model: Model, decisions: Sequence[Decision]) -> list[list[Decision]]:
    """The decisions in groups that share a weight or, as matmuls, the tensor that they multiply."""
    nodes = find_nodes(model.ir)
    readers: dict[int, list[Decision]] = {}
    for decision in decisions:
        if decision.site.kind == "matmul":
            readers.setdefault(id(nodes[decision.site.node].inputs[0]), []).append(decision)
    layers = [group for group in readers.values() if 1 < len(group) <= _MOST_FUSED]
    weights: dict[object, list[Decision]] = {}
    for decision in decisions:
        weights.setdefault(decision.site.storage, []).append(decision)
    group_of = {decision.site.node: {decision.site.node} for decision in decisions}
    for group in [*weights.values(), *layers]:
        merged = set().union(*(group_of[decision.site.node] for decision in group))
        for node in merged:
            group_of[node] = merged
    found: dict[int, list[Decision]] = {}
    for decision in decisions:
        found.setdefault(id(group_of[decision.site.node]), []).append(decision)
    return list(found.values())
