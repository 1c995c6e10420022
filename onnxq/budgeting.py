"""Budgeting: a plan that keeps a budget, from drafts and what each choice costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx_ir as ir

from onnxq.allotment import Unit, allotted, elements_of, units, variants
from onnxq.batches import calibration_batches
from onnxq.data_free import RANDOM
from onnxq.decide import Plan, decide
from onnxq.evidence import Evidence
from onnxq.model import Model, all_initializers
from onnxq.obstacles import size_on_disk
from onnxq.plugin.registry import Registry
from onnxq.progress import Progress, Silent
from onnxq.qdq.trained import NOTHING, Trained
from onnxq.recipe import Recipe
from onnxq.sensitivity import Sensitivity, measure_sensitivity
from onnxq.session import SessionOptions
from onnxq.sizes import parse_size
from onnxq.survey import Survey
from onnxq.upcast import needs_upcast

__all__ = ["drafts_of", "within_budget"]

_FUNCTIONS = 24 << 10
"""Bytes of the bodies of all packed operators; those that a model can use at once take some 20 kB."""

_NODE = 1 << 10
"""Bytes that a packed node takes beside its weight: names, shapes, padding to cache lines."""

_PAGE, _PAGE_FROM = 4096, 1 << 20
"""Codes of so many weights or more may start on a page of their own (see onnxq.output)."""


def drafts_of(
    model: Model,
    survey: Survey,
    recipe: Recipe,
    registry: Registry,
    evidence: Evidence | None = None,
    *,
    trained: Trained = NOTHING,
    data: str | None = None,
) -> list[Plan]:
    """A plan for each width and block size that a budget may choose."""
    real = data not in (None, RANDOM)
    return [
        decide(model, survey, variant, registry, evidence, trained=trained, data=real)
        for variant in variants(recipe, data=real)
    ]


def within_budget(
    model: Model,
    plan: Plan,
    drafts: Sequence[Plan],
    recipe: Recipe,
    registry: Registry,
    *,
    data: str | None = None,
    progress: Progress | None = None,
) -> Plan:
    """The plan with those decisions of its drafts that do least damage within the recipe's budget.

    Args:
        model: normalised.
        plan: of the recipe as it is; gives everything but the decisions.
        drafts: from `drafts_of`.
        recipe: with a budget.
        registry: where the plugins are.
        data: what --data was given; None: choose by the weights alone.
        progress: told which weights are being weighed.
    Raises:
        RecipeError: the budget is too small for this model.
    """
    sensitivity = _sensitivity(model, units(model, drafts), recipe, registry, data=data, progress=progress or Silent())
    limit, wish = min(_limits(model, plan, recipe))
    return allotted(plan, sensitivity.costs, limit=limit, wish=wish)


def _limits(model: Model, plan: Plan, recipe: Recipe) -> Iterator[tuple[float, str]]:
    """Bits that all quantized weights may take together, and the wish that says so."""
    if recipe.target_bpw is not None:
        yield recipe.target_bpw * elements_of(plan.decisions), f"target_bpw={recipe.target_bpw:g}"
    if recipe.target_size is not None:
        rest = _bytes_beside(model, plan)
        yield (
            8 * (parse_size(recipe.target_size) - rest),
            f"target_size={recipe.target_size}, {rest} bytes for the rest",
        )


def _bytes_beside(model: Model, plan: Plan) -> int:
    """Bytes of the output that are not quantized weights, rather too many than too few."""
    weights = {decision.site.storage: decision.site for decision in plan.decisions}.values()
    held = sum(tensor.nbytes for tensor in _tensors(model))
    structure = max(0, size_on_disk(model.path) - held)
    floats = max(0, held - sum(site.float_bytes for site in weights))
    padding = sum(_PAGE for site in weights if site.elements >= _PAGE_FROM)
    return floats + structure + padding + _FUNCTIONS + _NODE * len(plan.decisions)


def _tensors(model: Model) -> list[ir.TensorProtocol]:
    """The tensors of a graph, each once."""
    found = {id(value.const_value): value.const_value for value in all_initializers(model.ir)}
    return [tensor for tensor in found.values() if tensor is not None]


def _sensitivity(
    model: Model, choices: Sequence[Unit], recipe: Recipe, registry: Registry, *, data: str | None, progress: Progress
) -> Sensitivity:
    """What each choice costs; by the weights alone also for bfloat16 models, which cannot be run here."""
    options = SessionOptions(custom_op_libraries=model.custom_op_libraries)
    batches = None
    if data is not None and not needs_upcast(model.path):
        batches, _ = calibration_batches(model, data, recipe=recipe, options=options)
    progress.stage("weighing", sum(len(unit.options) > 1 for unit in choices))
    return measure_sensitivity(
        model,
        choices,
        registry,
        data=batches,
        options=options,
        state=recipe.state,
        on_unit=lambda unit: progress.step(unit.nodes[0]),
    )
