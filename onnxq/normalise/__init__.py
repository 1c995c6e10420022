"""Normalise: bring a graph to the one form that the survey understands. Semantics stay the same.

One rule a file; each rule's docstring lists its cases. The order matters and is this one:
functions inlined -> constants made initializers -> opset raised -> batch norms folded -> Gemm to MatMul ->
views of weights folded -> spelled-out activation functions to one operator -> means over an image to pooling ->
biases folded into convolutions -> transposed convolutions split -> pointwise convolutions over one position to
MatMul -> biases flattened -> dead nodes removed -> named.
"""

from __future__ import annotations

import logging

import onnx_ir as ir
from onnx_ir.passes import common

from onnxq.errors import ModelError
from onnxq.model import Model
from onnxq.normalise.batchnorm import fold_batchnorm
from onnxq.normalise.bias import flatten_biases
from onnxq.normalise.closed_forms import fold_closed_forms
from onnxq.normalise.constants import constants_to_initializers
from onnxq.normalise.conv_bias import fold_conv_bias
from onnxq.normalise.conv_transpose import split_conv_transpose
from onnxq.normalise.gemm import gemm_to_matmul
from onnxq.normalise.names import name_nodes
from onnxq.normalise.opset import raise_opset
from onnxq.normalise.pointwise_conv import pointwise_conv_to_matmul
from onnxq.normalise.spatial_mean import spatial_mean_to_pooling
from onnxq.normalise.transposed_weights import fold_weight_views
from onnxq.normalise.weights import reserve_names
from onnxq.ops import DOMAIN

__all__ = ["normalise"]


def normalise(model: Model, *, opset: int) -> Model:
    """The same function, with every weight reachable.

    Args:
        model: as loaded; left untouched.
        opset: the default-domain opset that the planned schemes need (a newer model keeps its own).
    Returns:
        A Model on a clone of the graph; its weights are the same lazy tensors, or lazy derivations of them.
    Raises:
        ModelError: a recursive function, or an operator that cannot be raised to the opset.
    """
    graph = model.ir.clone()
    try:
        # an already packed model keeps its functions (its weights are no floats any more), unless the opset has to be
        # raised, which the converter cannot do with functions in the model
        packed = graph.opset_imports.get("", 0) >= opset
        common.InlinePass(criteria=lambda function: not (packed and function.domain == DOMAIN))(graph)
    except ir.passes.PreconditionError as error:
        raise ModelError(f"{model.path}: model-local functions call each other in a circle: {error}") from error
    except ir.passes.PassError as error:
        raise ModelError(f"{model.path}: a model-local function cannot be inlined: {error}") from error
    constants_to_initializers(graph)
    graph = raise_opset(graph, opset)
    constants_to_initializers(graph)  # the converter writes attributes that became inputs as Constant nodes
    reserve_names(graph)
    fold_batchnorm(graph)
    gemm_to_matmul(graph)
    fold_weight_views(graph)
    _infer_shapes(graph)
    fold_closed_forms(graph)
    spatial_mean_to_pooling(graph)
    fold_conv_bias(graph)
    split_conv_transpose(graph)
    pointwise_conv_to_matmul(graph)
    flatten_biases(graph)
    common.RemoveUnusedNodesPass()(graph)
    common.RemoveUnusedFunctionsPass()(graph)  # type: ignore[no-untyped-call]
    name_nodes(graph)
    return Model(model.path, graph, model.fingerprint, model.custom_op_libraries)


def _infer_shapes(graph: ir.Model) -> None:
    """Shapes where onnx can tell; where it cannot, rules that need them decline (its warning says nothing new)."""
    if _has_sequences(graph):  # onnx-ir's pass takes every inferred type for a tensor's
        return
    logger = logging.getLogger("onnx_ir.passes.common.shape_inference")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        common.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(graph)
    finally:
        logger.setLevel(before)


def _has_sequences(graph: ir.Model) -> bool:
    """Does the model handle sequences or optionals of tensors anywhere?"""
    if any(value.type is not None and not isinstance(value.type, ir.TensorType) for value in graph.graph.inputs):
        return True
    return any("Sequence" in node.op_type or "Optional" in node.op_type for node in graph.graph.all_nodes())
