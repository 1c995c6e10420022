"""The Python API takes wishes in every form that means one thing."""

import re
from pathlib import Path

import pytest

from onnxq import api
from onnxq.errors import RecipeError
from onnxq.recipe import Override, Recipe, recipe_from


@pytest.mark.parametrize(
    "wish", ["fc=bits:8", ["fc=bits:8"], Override(nodes="fc", bits=8), [{"nodes": "fc", "bits": 8}]]
)
def test_an_override_as_text_value_or_mapping_alone_or_in_a_list(wish):
    assert api._recipe(None, {"override": wish}).override == (Override(nodes="fc", bits=8),)


@pytest.mark.parametrize("wish", ["head", ["head"], ("head",)])
def test_one_skip_may_stand_alone(wish):
    assert api._recipe(None, {"skip": wish}).skip == ("head",)


def test_a_recipe_as_a_mapping_is_the_recipe_of_its_fields():
    mapping = {"bits": 8, "skip": "head", "override": ["fc=bits:4"]}
    assert api._recipe(mapping, {}) == recipe_from(bits=8, skip=("head",), override=(Override(nodes="fc", bits=4),))


@pytest.mark.parametrize("recipe", [{"bits": 8}, Recipe(bits=8)])
def test_wishes_are_laid_over_a_recipe_and_none_is_no_wish(recipe):
    laid = api._recipe(recipe, {"bits": None, "seed": 3})
    assert (laid.bits, laid.seed) == (8, 3)


@pytest.mark.parametrize(
    ("wishes", "message"),
    [({"override": [3]}, "override.0=3: "), ({"override": 3}, "override=3: "), ({"bitz": 4}, "did you mean 'bits'")],
)
def test_wishes_that_cannot_be(wishes, message):
    with pytest.raises(RecipeError, match=re.escape(message)):
        api._recipe(None, wishes)
    with pytest.raises(RecipeError, match=re.escape(message)):
        api._recipe(wishes, {})


def test_data_may_be_a_path():
    assert api._data(Path("folder") / "batches") == str(Path("folder") / "batches")
