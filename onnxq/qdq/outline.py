"""Outline: whether a conversion runs anything on integer codes, and which nodes a user or a weight keeps from it.

1. `--format qdq` means every node that gains; `auto` means it for convolutional networks (those whose convolutions
   hold a fifth of the weights or more) and for models trained with quantization. Other formats leave activations alone.
2. Not for CUDA, where onnxruntime has none of these kernels.
3. A weight is quantized once: if one of its readers must stay float, or reads it as a table, all readers of its
   products stay float (or are packed).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import onnx_ir as ir

from onnxq.errors import RecipeError
from onnxq.model import Model
from onnxq.qdq.layout import EMPTY, Layout, lay_out
from onnxq.qdq.trained import NOTHING, Trained
from onnxq.recipe import Recipe
from onnxq.survey import Survey

__all__ = ["integer_layout", "is_convolutional"]

_CONVOLUTIONAL = 0.2
"""Share of weights in convolutions from which a network counts as convolutional: image and speech networks have
half and more, transformers with a convolution in front a few hundredths."""


def is_convolutional(survey: Survey) -> bool:
    """Do convolutions hold a fair part of the weights?"""
    weights = {site.storage[:2]: (site.kind, site.elements) for site in survey.sites}
    total = sum(elements for _, elements in weights.values())
    return sum(elements for kind, elements in weights.values() if kind == "conv") > _CONVOLUTIONAL * total


def integer_layout(
    model: Model,
    survey: Survey,
    recipe: Recipe,
    *,
    trained: Trained = NOTHING,
    unobserved: Mapping[str, str] | None = None,
) -> Layout:
    """The integer part of a conversion; EMPTY when it has none.

    Args:
        model: normalised.
        survey: of it.
        recipe: what the user asked for.
        trained: what the model brings along; products whose weight was trained run on codes whatever their size.
        unobserved: nodes that lack a range, and why.
    Raises:
        RecipeError: integer activations asked for on CUDA.
    """
    wanted = recipe.format == "qdq" or (recipe.format == "auto" and (bool(trained) or is_convolutional(survey)))
    if recipe.target == "cuda":  # 2
        if recipe.format in ("qdq", "dynamic"):
            raise RecipeError(
                f"--format {recipe.format} with --target cuda: onnxruntime's CUDA provider has no integer kernels for "
                "quantized activations and would run them as extra steps; use --format packed, or --target cpu"
            )
        return EMPTY
    if not wanted:
        return EMPTY
    barred = {**_skipped(model.ir.graph, recipe), **_other_readers(survey), **(unobserved or {})}
    insisted = {site.node for site in survey.sites if trained.weight(site.weight) is not None}
    while True:
        layout = lay_out(model.ir, barred, everything=recipe.integer_nodes == "all", insisted=insisted)
        split = _split_weights(layout, survey)
        if not split:
            return layout
        barred |= split


def _skipped(graph: ir.Graph, recipe: Recipe) -> dict[str, str]:
    return {
        node.name or "": f"--skip {pattern}"
        for node in graph
        for pattern in recipe.skip
        if re.search(pattern, node.name or "")
    }


def _other_readers(survey: Survey) -> dict[str, str]:
    """Products whose weight somebody else reads in a way that rules codes out (3)."""
    floats = {skip.weight: skip.node for skip in survey.skips}
    tables = {site.storage[:2] for site in survey.sites if site.kind in ("gather", "matmul_transposed")}
    barred = {}
    for site in survey.sites:
        if site.kind == "matmul_transposed":
            barred[site.node] = "its weight is a table of embeddings, which is packed"
        elif site.kind != "gather" and site.storage[:2] in tables:
            barred[site.node] = "its weight is a table of embeddings too, which is packed"
        elif site.weight in floats:
            barred[site.node] = f"'{floats[site.weight]}' reads the same weight in float"
    return barred


def _split_weights(layout: Layout, survey: Survey) -> dict[str, str]:
    """Integer nodes that share a weight with a product that is float."""
    integers = {integer.node for integer in layout.integers}
    products = [site for site in survey.sites if site.kind in ("conv", "matmul")]
    floats = {site.storage: site.node for site in products if site.node not in integers}
    return {
        site.node: f"'{floats[site.storage]}' shares its weight and stays float"
        for site in products
        if site.node in integers and site.storage in floats
    }
