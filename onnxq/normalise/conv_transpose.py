"""A transposed convolution whose patches do not overlap is a 1x1 convolution and a shuffle.

    y[o, h s + i, w s + j] = sum_c x[c, h, w] W[c, o, i, j] + b[o]     kernel s x s, stride s
                           = DepthToSpace(Conv(x, W'), s, CRD)         W'[(o, i, j), c] = W[c, o, i, j]

onnxruntime has integer kernels for both parts and none for ConvTranspose. A Relu or a Clip behind it moves in front
of the shuffle, where the convolution can absorb it.

Conditions: two spatial axes, kernel = strides and square, one group, no padding, no dilation, weight and bias constant.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnxq.normalise.weights import constant, derive, is_float_constant, sole_consumer, unique_name

__all__ = ["split_conv_transpose"]

_IMAGE_RANK = 4


def split_conv_transpose(model: ir.Model) -> int:
    """Rewrite every such ConvTranspose in place; returns how many."""
    found = [node for node in ir.traversal.RecursiveGraphIterator(model.graph) if _matches(node)]
    for node in found:
        _rewrite(node)
    return len(found)


def _matches(node: ir.Node) -> bool:
    if node.op_type != "ConvTranspose" or node.domain != "" or not is_float_constant(node.inputs[1]):
        return False
    if len(node.inputs) > 2 and node.inputs[2] is not None and not is_float_constant(node.inputs[2]):
        return False
    tensor = constant(node.inputs[1])
    assert tensor is not None
    shape, attributes = tuple(int(size) for size in tensor.shape.numpy()), node.attributes
    return (
        len(shape) == _IMAGE_RANK
        and shape[2] == shape[3]
        and shape[2] > 1
        and tuple(attributes.get_ints("strides", ())) == shape[2:]
        and attributes.get_int("group", 1) == 1
        and attributes.get_string("auto_pad", "NOTSET") in ("NOTSET", "VALID")
        and all(size == 1 for size in attributes.get_ints("dilations", ()))
        and not any(attributes.get_ints("pads", ()))
        and not any(attributes.get_ints("output_padding", ()))
        and "output_shape" not in attributes
    )


def _rewrite(node: ir.Node) -> None:
    x, weight = node.inputs[:2]
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    tensor = constant(weight)
    assert x is not None
    assert weight is not None
    assert tensor is not None
    channels_in, channels_out, size, _ = (int(length) for length in tensor.shape.numpy())
    filters = channels_out * size * size
    flat = derive(
        weight,
        "_shuffled",
        lambda w: w.reshape(channels_in, filters).T.reshape(filters, channels_in, 1, 1),
        (filters, channels_in, 1, 1),
    )
    inputs = [x, flat]
    if bias is not None:
        inputs.append(derive(bias, f"_repeated_{size}", lambda b: np.repeat(b, size * size), (filters,)))
    value = _emit(node, "Conv", inputs, node.name or "")
    follower = sole_consumer(node.outputs[0])
    last = node
    if follower is not None and follower.graph is node.graph and _saturates(follower):
        value = _emit(node, follower.op_type, [value, *follower.inputs[1:]], follower.name or "")
        last = follower
    value = _emit(node, "DepthToSpace", [value], f"{node.name}/shuffle", blocksize=size, mode="CRD")
    _take_output(value, last, node)


def _saturates(node: ir.Node) -> bool:
    """A Relu, or a Clip between constants (which are scalars, so it does not matter where it stands)."""
    if node.domain != "" or node.op_type not in ("Relu", "Clip"):
        return False
    return all(value is None or constant(value) is not None for value in node.inputs[1:])


def _emit(
    before: ir.Node, op_type: str, inputs: Sequence[ir.Value | None], name: str, **attributes: int | str
) -> ir.Value:
    graph = before.graph
    assert isinstance(graph, ir.Graph)
    node = ir.node(op_type, inputs, attributes=attributes or None, name=name)
    node.outputs[0].name = unique_name(graph, f"{before.outputs[0].name}_{op_type.lower()}")
    node.outputs[0].type = before.outputs[0].type
    graph.insert_before(before, node)
    return node.outputs[0]


def _take_output(value: ir.Value, last: ir.Node, first: ir.Node) -> None:
    """`value` takes the place and name of what `last` wrote; both old nodes go."""
    graph, old = last.graph, last.outputs[0]
    assert isinstance(graph, ir.Graph)
    old.replace_all_uses_with(value, replace_graph_outputs=True)
    name, old.name = old.name, None
    value.name, value.type, value.shape = name, old.type, old.shape
    graph.remove([last] if last is first else [last, first], safe=True)
