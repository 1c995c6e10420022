"""Allotment: what may be chosen, what is tied, and the plan that comes of it."""

from collections.abc import Sequence

import pytest
from graphs import in_memory
from tiny_models import transformer

from onnxq.allotment import Unit, allotted, bits_of, elements_of, units, variants
from onnxq.decide import Plan, decide, needed_opset
from onnxq.errors import RecipeError
from onnxq.model import Model
from onnxq.normalise import normalise
from onnxq.plugin.registry import Registry
from onnxq.recipe import Recipe, parse_override
from onnxq.survey import survey_model


def drafted(registry: Registry, recipe: Recipe, *, data: bool = False) -> tuple[Model, list[Plan]]:
    model = normalise(in_memory(transformer()), opset=needed_opset(recipe))
    survey = survey_model(model)
    return model, [decide(model, survey, variant, registry) for variant in variants(recipe, data=data)]


def of(found: Sequence[Unit], node: str) -> Unit:
    (unit,) = [unit for unit in found if node in unit.nodes]
    return unit


def labels(unit: Unit) -> set[tuple[int, int]]:
    return {(option[0].scheme.bits, option[0].scheme.block_size) for option in unit.options}


def test_matmuls_of_one_tensor_and_readers_of_one_weight_are_tied(registry: Registry) -> None:
    found = units(*drafted(registry, Recipe(target_bpw=4)))
    assert [unit.nodes for unit in found] == [
        ("/embed", "/head"),
        ("/attention/q", "/attention/k", "/attention/v"),
        ("/attention/o",),
        ("/mlp/up",),
        ("/mlp/down",),
    ]
    assert labels(of(found, "/mlp/up")) == {(bits, block) for bits in (2, 3, 4, 5, 6, 8) for block in (32, 128)}


def test_what_the_recipe_fixes_has_one_option(registry: Registry) -> None:
    recipe = Recipe(target_bpw=4, block_size=64, override=(parse_override("mlp/up=bits:8"),))
    found = units(*drafted(registry, recipe, data=True))
    assert labels(of(found, "/mlp/up")) == {(8, 64)}
    assert labels(of(found, "/mlp/down")) == {(bits, 64) for bits in (2, 3, 4, 5, 6, 8)}
    assert labels(of(found, "/embed")) == {(bits, 64) for bits in (2, 4, 8)}
    fixed = units(*drafted(registry, Recipe(target_bpw=4, table_bits=8), data=True))
    assert {bits for bits, _ in labels(of(fixed, "/embed"))} == {8}


def test_the_plan_takes_the_options_that_cost_least(registry: Registry) -> None:
    model, drafts = drafted(registry, Recipe(target_bpw=4))
    found = units(model, drafts)
    precious = of(found, "/mlp/down")
    costs = {
        unit: tuple((100.0 if unit is precious else 1.0) * 4.0 ** -option[0].scheme.bits for option in unit.options)
        for unit in found
    }
    limit = 5.5 * elements_of(drafts[0].decisions)
    plan = allotted(drafts[0], costs, limit=limit, wish="target_bpw=5.5")
    assert 0.95 * limit < bits_of(plan.decisions) <= limit
    bits = {decision.site.node: decision.scheme.bits for decision in plan.decisions if decision.site.kind == "matmul"}
    assert bits["/mlp/down"] == max(bits.values()) > bits["/mlp/up"]
    assert bits["/attention/q"] == bits["/attention/k"] == bits["/attention/v"]
    assert [decision.site for decision in plan.decisions] == [decision.site for decision in drafts[0].decisions]


def test_a_shared_weight_counts_once(registry: Registry) -> None:
    _, drafts = drafted(registry, Recipe(target_bpw=4))
    table = [decision for decision in drafts[0].decisions if decision.site.node in ("/embed", "/head")]
    assert bits_of(table) == bits_of(table[:1]) == 60 * (40 * 8 + 2 * 16)  # two scales a row, no zero points
    assert elements_of(table) == 60 * 40


def test_a_target_below_the_smallest_options_is_an_error_that_says_what_would_do(registry: Registry) -> None:
    model, drafts = drafted(registry, Recipe(target_bpw=1))
    costs = {unit: (0.0,) * len(unit.options) for unit in units(model, drafts)}
    with pytest.raises(RecipeError, match=r"target_bpw=1: the smallest that .* allow is 3\.39 bits per quantized"):
        allotted(drafts[0], costs, limit=1.0 * elements_of(drafts[0].decisions), wish="target_bpw=1")


@pytest.mark.parametrize(("data", "method"), [(False, "mse"), (True, "gptq")])
def test_the_method_is_one_for_few_bits_unless_given(registry: Registry, data: bool, method: str) -> None:
    for recipe, expected in ((Recipe(target_bpw=4), method), (Recipe(target_bpw=4, method="rtn"), "rtn")):
        _, drafts = drafted(registry, recipe, data=data)
        assert {decision.method for draft in drafts for decision in draft.decisions} == {expected}
