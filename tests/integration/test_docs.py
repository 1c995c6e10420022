"""The docs say what the code does: recipe keys, hooks, examples that run."""

import inspect
import re
import types
from pathlib import Path

import numpy as np
import pytest

from onnxq.plugin import hookspecs
from onnxq.plugin.registry import build_registry
from onnxq.recipe import Override, Recipe, recipe_from_file
from onnxq.scheme import Scheme

ROOT = Path(__file__).resolve().parents[2]
RECIPES = (ROOT / "docs/recipes.md").read_text(encoding="utf8")
PLUGINS = (ROOT / "docs/plugins.md").read_text(encoding="utf8")


def block(text: str, language: str, index: int = 0) -> str:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)[index]


def test_every_recipe_key_is_documented_and_no_other() -> None:
    rows = "\n".join(line.split("|")[1] for line in RECIPES.splitlines() if line.startswith("| `"))
    assert set(re.findall(r"`(\w+)`", rows)) == set(Recipe.model_fields)
    overrides = next(line for line in RECIPES.splitlines() if line.startswith("| `override`"))
    assert set(re.findall(r"`(\w+)`", overrides)) - {"override"} == set(Override.model_fields)


def test_the_recipe_of_the_docs_is_one(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(block(RECIPES, "toml"), encoding="utf8")
    recipe = recipe_from_file(tmp_path / "recipe.toml")
    assert (recipe.method, recipe.override[0].bits) == ("mse", 8)


@pytest.mark.parametrize("hook", [name for name in hookspecs.__all__ if name.startswith("onnxq_")])
def test_every_hook_stands_in_the_docs_with_its_signature(hook: str) -> None:
    signature = inspect.signature(getattr(hookspecs, hook))
    assert f"`{hook}{signature}`".replace("'", "") in PLUGINS


def test_the_plugin_of_the_docs_works() -> None:
    module = types.ModuleType("documented")
    exec(block(PLUGINS, "python"), vars(module))
    registry = build_registry([(module, "documented", "1")])
    weight = np.random.default_rng(0).standard_normal((64, 8)).astype(np.float32)
    quantized = registry.weight_quantizer("half-range").provided.quantize(
        weight, Scheme(bits=4, symmetric=False, block_size=32), None
    )
    assert quantized.codes.shape == (64, 8)
