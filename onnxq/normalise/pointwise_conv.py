"""A 1x1 convolution over a single position is a matrix product: Reshape, MatMul, Add, Reshape.

    Conv(X [B, C, 1, ..], W [O, C, 1, ..]) = Reshape(Reshape(X, [B, C]) @ W^T + b, [B, O, 1, ..])

It pays where the spatial size is known to be 1, as behind a global pooling (squeeze-and-excite blocks,
classifier heads): the reshapes are free there, and onnxruntime has packed kernels for MatMul only. Over
larger images the product would need two real transposes of the activations, so those stay convolutions.

Conditions: group 1, kernel and strides 1, no padding, the weight constant, the input's spatial dims all 1 as
far as shape inference or a global pooling in front says. The convolution's output keeps its name.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxq.normalise.weights import add_initializer, constant, derive, is_float_constant, unique_name

__all__ = ["pointwise_conv_to_matmul"]

_GLOBAL_POOLS = frozenset({"GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"})
# Elementwise operators that keep a spatial size of 1 when their other operand is constant or absent.
_KEEPS_SHAPE = frozenset({"Relu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "LeakyRelu", "Elu", "Tanh", "Erf"})


def pointwise_conv_to_matmul(model: ir.Model) -> int:
    """Rewrite every such convolution in place; returns how many."""
    found = [node for node in ir.traversal.RecursiveGraphIterator(model.graph) if _matches(node)]
    for node in found:
        _rewrite(node)
    return len(found)


def _matches(node: ir.Node) -> bool:
    if node.op_type != "Conv" or node.domain != "" or not is_float_constant(node.inputs[1]):
        return False
    tensor = constant(node.inputs[1])
    assert tensor is not None
    spatial = tuple(tensor.shape.numpy())[2:]
    attributes = node.attributes
    plain = (
        attributes.get_int("group", 1) == 1
        and all(size == 1 for size in spatial)
        and all(stride == 1 for stride in attributes.get_ints("strides", ()))
        and not any(attributes.get_ints("pads", ()))
    )
    return plain and node.inputs[0] is not None and _single_position(node.inputs[0])


def _single_position(value: ir.Value) -> bool:
    if value.shape is not None and len(value.shape) > 2:
        dims = list(value.shape)[2:]
        if all(dim == 1 for dim in dims):
            return True
    producer = value.producer()
    if producer is None:
        return False
    if producer.op_type in _GLOBAL_POOLS:
        return True
    first = producer.inputs[0] if producer.inputs else None
    if producer.op_type in _KEEPS_SHAPE or _is_pointwise(producer):
        return first is not None and _single_position(first)
    return False


def _is_pointwise(node: ir.Node) -> bool:
    return node.op_type == "Conv" and _matches(node)


def _rewrite(conv: ir.Node) -> None:
    graph, (x, weight), output = conv.graph, conv.inputs[:2], conv.outputs[0]
    assert isinstance(graph, ir.Graph)
    assert x is not None
    assert weight is not None
    tensor = constant(weight)
    assert tensor is not None
    channels_out, channels_in, *spatial = tuple(int(size) for size in tensor.shape.numpy())
    matrix = derive(weight, "_matrix", lambda w: w.reshape(channels_out, channels_in).T, (channels_in, channels_out))
    name = conv.name or ""
    flat = _node(conv, "Reshape", [x, _shape(graph, conv, "flat", [-1, channels_in])], f"{name}/flatten")
    flat.shape = ir.Shape([None, channels_in])
    value = _node(conv, "MatMul", [flat, matrix], name)
    value.shape = ir.Shape([None, channels_out])
    bias = conv.inputs[2] if len(conv.inputs) > 2 else None
    if bias is not None:
        value = _node(conv, "Add", [value, bias], f"{name}/bias")
    shape = _shape(graph, conv, "shape", [-1, channels_out, *[1] * len(spatial)])
    restored = _node(conv, "Reshape", [value, shape], f"{name}/restore")
    output.replace_all_uses_with(restored, replace_graph_outputs=True)
    final, output.name = output.name, None
    restored.name, restored.type, restored.shape = final, output.type, output.shape
    graph.remove(conv, safe=True)


def _node(conv: ir.Node, op_type: str, inputs: list[ir.Value], name: str) -> ir.Value:
    graph = conv.graph
    assert isinstance(graph, ir.Graph)
    node = ir.node(op_type, inputs, name=name)
    node.outputs[0].name = unique_name(graph, f"{conv.outputs[0].name}_{op_type.lower()}")
    node.outputs[0].type = inputs[0].type
    graph.insert_before(conv, node)
    return node.outputs[0]


def _shape(graph: ir.Graph, conv: ir.Node, what: str, dims: list[int]) -> ir.Value:
    name = unique_name(graph, f"{conv.outputs[0].name}_{what}")
    return add_initializer(graph, name, ir.Tensor(np.array(dims, np.int64), name=name))
