"""A mean over all positions of an image is a global average pooling.

    ReduceMean(X [B, C, H, W, ..], axes = all behind the channels, keepdims=1) = GlobalAveragePool(X)

Only when the rank of X is known (from shape inference) and the axes are constant. Rank 3 is left alone: there the
mean over the last axis is, as a rule, the first step of a layer norm.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxq.normalise.weights import constant

__all__ = ["spatial_mean_to_pooling"]

_SMALLEST_RANK = 4


def spatial_mean_to_pooling(model: ir.Model) -> int:
    """Rewrite every such mean in place; returns how many."""
    found = [node for node in ir.traversal.RecursiveGraphIterator(model.graph) if _matches(node)]
    for node in found:
        _rewrite(node)
    return len(found)


def _matches(node: ir.Node) -> bool:
    if node.op_type != "ReduceMean" or node.domain != "" or node.attributes.get_int("keepdims", 1) != 1:
        return False
    source = node.inputs[0]
    axes = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if source is None or source.shape is None or axes is None or source.dtype not in (None, ir.DataType.FLOAT):
        return False
    rank = len(source.shape)
    found = sorted(int(axis) % rank for axis in axes.numpy().reshape(-1)) if rank else []
    return rank >= _SMALLEST_RANK and found == list(range(2, rank))


def _rewrite(node: ir.Node) -> None:
    graph, output = node.graph, node.outputs[0]
    assert isinstance(graph, ir.Graph)
    pooling = ir.node("GlobalAveragePool", [node.inputs[0]], name=node.name)
    graph.insert_before(node, pooling)
    new = pooling.outputs[0]
    output.replace_all_uses_with(new, replace_graph_outputs=True)
    name, output.name = output.name, None
    new.name, new.type, new.shape = name, output.type, output.shape
    graph.remove(node, safe=True)
