"""Constants seen through Transpose, Cast, Reshape, Squeeze or Unsqueeze become constants themselves.

Exporters like to write `Transpose(W) -> MatMul` or `Cast(W) -> MatMul`; onnxruntime fuses
DequantizeLinear only straight into the MatMul.

1. A float constant behind one of these operators is replaced by a lazily derived constant.
2. Except where other nodes read the untransposed constant too, as in a tied embedding (Gather) and head
   (Transpose -> MatMul): there the Transpose stays and the survey sees a transposed site on a shared weight,
   so that it is stored once. A plain MatMul beside it does not count: it needs blocks along the other axis.
3. And except where the node cannot be right (a Reshape to another number of elements, an axis that is not there): it
   is left for onnxruntime to refuse.

The rule repeats until nothing changes, so chains fold from the constant outwards.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from onnxq.model import FLOAT_TYPES
from onnxq.normalise.weights import Array, constant, derive, is_float_constant

__all__ = ["fold_weight_views"]


def fold_weight_views(model: ir.Model) -> int:
    """Apply case 1 in place until nothing changes; returns how many nodes were folded."""
    count = 0
    while folded := sum(_fold(node) for node in list(ir.traversal.RecursiveGraphIterator(model.graph))):
        count += folded
    return count


def _fold(node: ir.Node) -> bool:
    if node.domain != "" or not node.inputs or not is_float_constant(node.inputs[0]):
        return False
    if node.outputs[0].is_graph_output():
        return False
    value = node.inputs[0]
    assert value is not None
    derived = _derived(node, value)
    if derived is None:
        return False
    node.outputs[0].replace_all_uses_with(derived)
    assert node.graph is not None
    node.graph.remove(node, safe=True)
    return True


def _derived(node: ir.Node, value: ir.Value) -> ir.Value | None:
    """The constant that this node computes, or None where it must stay."""
    tensor = constant(value)
    assert tensor is not None
    shape = tuple(tensor.shape.numpy())
    match node.op_type:
        case "Transpose":
            if _read_untransposed(value):  # 2
                return None
            perm = list(node.attributes.get_ints("perm", tuple(reversed(range(len(shape))))))
            if sorted(perm) != list(range(len(shape))):  # 3
                return None
            suffix = "_transposed" if perm == [1, 0] else f"_transposed_{'_'.join(map(str, perm))}"
            return derive(value, suffix, lambda x: x.transpose(perm), tuple(shape[axis] for axis in perm))
        case "Cast":
            return _cast(value, tensor, ir.DataType(node.attributes.get_int("to", 0)))
        case "Reshape" | "Squeeze" | "Unsqueeze":
            target = _view_shape(node, shape)
            if target is None:
                return None
            return derive(value, "_as_" + "x".join(map(str, target)), lambda x: x.reshape(target), target)
    return None


def _read_untransposed(value: ir.Value) -> bool:
    return any((usage.node.op_type, usage.idx) not in (("Transpose", 0), ("MatMul", 1)) for usage in value.uses())


def _cast(value: ir.Value, tensor: ir.TensorProtocol, to: ir.DataType) -> ir.Value | None:
    """A float constant in another float type. Narrowing is kept as it is: it would round before quantizing."""
    if to not in FLOAT_TYPES or to.itemsize < tensor.dtype.itemsize:
        return None
    return derive(value, f"_as_{to.name.lower()}", lambda x: x, dtype=to)


def _view_shape(node: ir.Node, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Result shape of Reshape, Squeeze or Unsqueeze over a constant shape; None if not known or impossible."""
    second = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if node.op_type == "Reshape":
        if second is None or node.attributes.get_int("allowzero", 0) == 1:
            return None
        return _reshaped(shape, second.numpy().reshape(-1).tolist())
    axes = second.numpy().reshape(-1).tolist() if second is not None else list(node.attributes.get_ints("axes", ()))
    if len(node.inputs) > 1 and second is None:
        return None
    probe: Array = np.empty(shape, np.bool_)  # numpy's own rules for axes
    try:
        if node.op_type == "Squeeze":
            return np.squeeze(probe, tuple(axes) if axes else None).shape
        return np.expand_dims(probe, tuple(axes)).shape
    except ValueError:  # 3; numpy's AxisError is one
        return None


def _reshaped(shape: tuple[int, ...], wanted: list[int]) -> tuple[int, ...] | None:
    """What Reshape makes of a shape: 0 keeps a dim, one -1 takes what is left; None if it cannot (case 3)."""
    if any(size == 0 and axis >= len(shape) for axis, size in enumerate(wanted)):
        return None
    target = [shape[axis] if size == 0 else size for axis, size in enumerate(wanted)]
    if target.count(-1) == 1:
        known = math.prod(size for size in target if size != -1)
        target[target.index(-1)] = math.prod(shape) // max(known, 1)
    return tuple(target) if min(target, default=0) >= 0 and math.prod(target) == math.prod(shape) else None
