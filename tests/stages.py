"""The stages of a conversion in memory: what `onnxq convert` does between reading and writing."""

from __future__ import annotations

from typing import Any

import onnx
import onnx_ir as ir
from graphs import in_memory

from onnxq.decide import Plan, decide, needed_opset
from onnxq.normalise import normalise
from onnxq.plugin.registry import Registry
from onnxq.recipe import recipe_from
from onnxq.rewrite import Rewritten, rewrite
from onnxq.survey import Site, SiteKind, survey_model


def keep(tensor: ir.TensorProtocol, name: str) -> ir.TensorProtocol:
    """A sink that stores nothing: the tensor under its new name."""
    return ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=name)


def plan(proto: onnx.ModelProto, registry: Registry, **wishes: Any) -> Plan:
    """What would be done with a model."""
    recipe = recipe_from(**wishes)
    model = normalise(in_memory(proto), opset=needed_opset(recipe))
    return decide(model, survey_model(model), recipe, registry)


def quantize(proto: onnx.ModelProto, registry: Registry, **wishes: Any) -> Rewritten:
    """Normalise, survey, decide, rewrite."""
    recipe = recipe_from(**wishes)
    model = normalise(in_memory(proto), opset=needed_opset(recipe))
    return rewrite(model, decide(model, survey_model(model), recipe, registry), registry, sink=keep)


def site(kind: SiteKind, k: int, n: int) -> Site:
    """A site of a weight W."""
    op_type = {"gather": "Gather", "conv": "Conv"}.get(kind, "MatMul")
    return Site("fc", op_type, kind, "W", "", k, n, "FLOAT", "Y")
