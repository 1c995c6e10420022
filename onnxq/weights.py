"""Weights: the values of a site's weight, read from a graph."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from onnxq.affine import FloatArray
from onnxq.errors import PlanError
from onnxq.survey import Site

__all__ = ["read_weight", "weight_value"]


def read_weight(nodes: Mapping[str, ir.Node], site: Site) -> FloatArray:
    """The weight of a site as read-only float32 [K, N]; `nodes` are those of its graph, by name.

    Raises:
        PlanError: it holds NaN or infinity.
    """
    tensor = weight_value(nodes[site.node], site).const_value
    assert tensor is not None
    array = tensor.numpy().astype(np.float32)
    if site.kind == "conv":
        array = array.reshape(array.shape[0], -1)
    if site.kind != "matmul":
        array = array.T
    if not np.isfinite(array).all():
        bad = int(np.size(array) - np.isfinite(array).sum())
        raise PlanError(
            f"{site.op_type} '{site.node}': weight '{site.weight}' holds {bad} values that are NaN or infinite; "
            f"repair the model or keep it float with --skip '{re.escape(site.node)}'"
        )
    array.flags.writeable = False
    return array


def weight_value(node: ir.Node, site: Site) -> ir.Value:
    """The initializer that holds the weight of a site, given the site's node."""
    value = node.inputs[0 if site.kind == "gather" else 1]
    assert value is not None
    if site.kind == "matmul_transposed":
        transpose = value.producer()
        assert transpose is not None
        value = transpose.inputs[0]
        assert value is not None
    return value
