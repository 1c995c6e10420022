"""A constant added behind a convolution, one number per channel, becomes its bias.

    Add(Conv(X, W, b), c [1, C, 1, ..]) = Conv(X, W, b + c)     also for ConvTranspose, and for a scalar c

Only when nobody else reads the convolution's output, and the Add does not raise its rank. The Add's output keeps its
name, and so does the convolution.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxq.normalise.weights import add_initializer, constant, is_float_constant, sole_consumer, unique_name

__all__ = ["fold_conv_bias"]


def fold_conv_bias(model: ir.Model) -> int:
    """Fold every such Add in place; returns how many."""
    return sum(_fold(node) for node in list(ir.traversal.RecursiveGraphIterator(model.graph)))


def _fold(conv: ir.Node) -> bool:
    if conv.op_type not in ("Conv", "ConvTranspose") or conv.domain != "" or not is_float_constant(conv.inputs[1]):
        return False
    add = sole_consumer(conv.outputs[0])
    if add is None or add.op_type != "Add" or add.domain != "" or add.graph is not conv.graph:
        return False
    shift = add.inputs[1] if add.inputs[0] is conv.outputs[0] else add.inputs[0]
    bias = conv.inputs[2] if len(conv.inputs) > 2 else None
    if not is_float_constant(shift) or (bias is not None and not is_float_constant(bias)):
        return False
    assert shift is not None
    channels, rank = _channels(conv)
    if not _per_channel(shift, channels, rank):
        return False
    conv.resize_inputs(3)
    conv.replace_input_with(2, _sum(conv, shift, bias, channels))
    _take_output(conv, add)
    return True


def _sum(conv: ir.Node, shift: ir.Value, bias: ir.Value | None, channels: int) -> ir.Value:
    """shift (+ bias) as an initializer of the convolution's own graph: one name may stand in two scopes."""
    graph, tensor = conv.graph, constant(shift)
    assert isinstance(graph, ir.Graph)
    assert tensor is not None
    total = np.broadcast_to(tensor.numpy().astype(np.float32).reshape(-1), (channels,))
    if bias is not None:
        first = constant(bias)
        assert first is not None
        total = total + first.numpy().astype(np.float32)
    name = unique_name(graph, f"{conv.outputs[0].name}_bias")
    stored = np.ascontiguousarray(total).astype(tensor.dtype.numpy())
    return add_initializer(graph, name, ir.Tensor(stored, dtype=tensor.dtype, name=name))


def _channels(conv: ir.Node) -> tuple[int, int]:
    """Output channels, and the rank of the output."""
    weight = constant(conv.inputs[1])
    assert weight is not None
    shape = tuple(int(size) for size in weight.shape.numpy())
    if conv.op_type == "Conv":
        return shape[0], len(shape)
    return shape[1] * conv.attributes.get_int("group", 1), len(shape)


def _per_channel(shift: ir.Value, channels: int, rank: int) -> bool:
    tensor = constant(shift)
    assert tensor is not None
    shape = tuple(int(size) for size in tensor.shape.numpy())
    if len(shape) > rank:
        return False
    padded = (1,) * (rank - len(shape)) + shape
    return padded[0] == 1 and padded[1] in (1, channels) and all(size == 1 for size in padded[2:])


def _take_output(conv: ir.Node, add: ir.Node) -> None:
    """The convolution's output takes the Add's place and name."""
    graph, old, new = add.graph, add.outputs[0], conv.outputs[0]
    assert isinstance(graph, ir.Graph)
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    name, old.name = old.name, None
    new.name, new.type, new.shape = name, old.type, old.shape
    graph.remove(add, safe=True)
