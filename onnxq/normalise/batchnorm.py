"""BatchNormalization behind Conv, ConvTranspose or Gemm is folded into its weight and bias.

    BN(x) = (x - mean) * s + b_bn     with s = scale / sqrt(var + epsilon), per output channel
    BN(W x + b) = (s W) x + (b - mean) * s + b_bn

1. Conv: output channels are axis 0 of W.
2. ConvTranspose: W is [C_in, C_out / group, ...]; channel c of group g is row block g, axis 1.
3. Gemm: axis 0 with transB, else axis 1; only alpha = beta = 1 and a bias that is a vector (or none).

Only in inference mode, with every statistic constant, when the BatchNormalization is the only reader, in the
same scope, and the weight belongs to this node alone (a shared weight cannot be scaled for one of its users).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxq.normalise.weights import (
    add_initializer,
    constant,
    derive,
    is_float_constant,
    sole_consumer,
    unique_name,
)

__all__ = ["fold_batchnorm"]

_Vector = npt.NDArray[np.float32]


def fold_batchnorm(model: ir.Model) -> int:
    """Fold every BatchNormalization that can be, in place; returns how many."""
    return sum(_fold(node) for node in list(ir.traversal.RecursiveGraphIterator(model.graph)))


def _fold(bn: ir.Node) -> bool:
    if bn.op_type != "BatchNormalization" or bn.domain != "" or bn.attributes.get_int("training_mode", 0) == 1:
        return False
    source = bn.inputs[0]
    producer = source.producer() if source is not None else None
    if source is None or producer is None or not all(is_float_constant(value) for value in bn.inputs[1:5]):
        return False
    if any(output.uses() or output.is_graph_output() for output in bn.outputs[1:]):
        return False
    if sole_consumer(source) is not bn or producer.graph is not bn.graph or not _foldable(producer):
        return False
    scale, shift = _affine(bn)
    weight = producer.inputs[1]
    assert weight is not None
    axis_shape = _scale_shape(producer, weight, scale)
    if axis_shape is None:
        return False
    producer.replace_input_with(1, derive(weight, "_bn", lambda w: _scaled(w, axis_shape)))
    _set_bias(producer, scale, shift)
    _take_output(producer, bn)
    return True


def _affine(bn: ir.Node) -> tuple[_Vector, _Vector]:
    """s [C] and b_bn - mean * s [C], in float32."""
    gamma, beta, mean, variance = (_read(value) for value in bn.inputs[1:5])
    scale = gamma / np.sqrt(variance + np.float32(bn.attributes.get_float("epsilon", 1e-5)))
    return scale, beta - mean * scale


def _foldable(node: ir.Node) -> bool:
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm") or node.domain != "":
        return False
    weight = node.inputs[1]
    if weight is None or not is_float_constant(weight) or sole_consumer(weight) is not node:
        return False
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None and not is_float_constant(bias):
        return False
    if node.op_type != "Gemm":
        return True
    plain = all(node.attributes.get_float(name, 1.0) == 1.0 for name in ("alpha", "beta"))
    bias_tensor = constant(bias)
    return plain and (bias_tensor is None or len(bias_tensor.shape) == 1)


def _scale_shape(node: ir.Node, weight: ir.Value, scale: _Vector) -> _Vector | None:
    """The channel scales in a shape that broadcasts over the weight (ConvTranspose: see `_scaled`)."""
    tensor = constant(weight)
    assert tensor is not None
    shape = tuple(tensor.shape.numpy())
    if node.op_type == "Gemm":
        column = bool(node.attributes.get_int("transB", 0))
        fits = shape[0 if column else 1] == scale.size
        return (scale[:, None] if column else scale[None, :]) if fits else None
    if node.op_type == "Conv":
        return scale.reshape(-1, *[1] * (len(shape) - 1)) if shape[0] == scale.size else None
    group = node.attributes.get_int("group", 1)
    if shape[1] * group != scale.size:
        return None
    rows = np.repeat(scale.reshape(group, -1), shape[0] // group, axis=0)  # [C_in, C_out / group]
    return rows.reshape(*rows.shape, *[1] * (len(shape) - 2))


def _scaled(weight: npt.NDArray[np.floating], scale: _Vector) -> npt.NDArray[np.floating]:
    return weight * scale


def _set_bias(node: ir.Node, scale: _Vector, shift: _Vector) -> None:
    weight = node.inputs[1]
    assert weight is not None
    dtype, graph = weight.dtype, node.graph
    assert dtype is not None
    assert isinstance(graph, ir.Graph)
    old = node.inputs[2] if len(node.inputs) > 2 else None
    bias = shift + (_read(old) * scale if old is not None else 0)
    name = unique_name(graph, f"{node.outputs[0].name}_bn_bias")
    value = add_initializer(graph, name, ir.Tensor(bias.astype(dtype.numpy()), dtype=dtype, name=name))
    node.resize_inputs(3)
    node.replace_input_with(2, value)


def _take_output(node: ir.Node, bn: ir.Node) -> None:
    """Let the node produce the value that the BatchNormalization produced, under its name."""
    old, new = bn.outputs[0], node.outputs[0]
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    name, old.name = old.name, None
    new.name, new.type, new.shape = name, old.type, old.shape
    assert bn.graph is not None
    bn.graph.remove(bn, safe=True)


def _read(value: ir.Value | None) -> _Vector:
    tensor = constant(value)
    assert tensor is not None
    return tensor.numpy().astype(np.float32)
