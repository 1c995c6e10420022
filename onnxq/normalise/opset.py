"""Raise the default-domain opset, so that low-bit types and blocked DequantizeLinear exist.

Opset 21 brings 4-bit types and `block_size`, opset 25 the 2-bit types. onnx's own version converter does
the work on the protobuf; three things around it are ours:

1. Tensors above 1 KiB are handed to it as references and put back afterwards, so that a model of any size
   fits through its C++ interface; the small ones stay, since adapters read shapes and axes.
2. It leaves `ir_version` alone, so we raise it to what the opset asks for.
3. It cannot raise everything: then a ModelError says which adapter failed. GroupNormalization 18, with its one
   scale per group, it passes on as GroupNormalization 21, with one per channel: we refuse that.

Functions must have been inlined before: the converter drops them.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnx import version_converter

from onnxq.errors import ModelError
from onnxq.model import all_initializers

__all__ = ["raise_opset"]

_KEPT_INLINE_BYTES = 1024
_HELD_BACK = "onnxq-held-back-"
_GROUP_NORMALIZATION_PER_CHANNEL = 21


def raise_opset(model: ir.Model, target: int) -> ir.Model:
    """The model at default-domain opset `target` or above; itself when it is there already.

    Raises:
        ModelError: an operator has no conversion to the target opset.
    """
    current = model.opset_imports.get("", target)
    if current < target:
        model = _convert(model, target, current)
    needed = onnx.helper.find_min_ir_version_for(
        [onnx.helper.make_opsetid("", model.opset_imports.get("", target))], ignore_unknown=True
    )
    model.ir_version = max(model.ir_version, needed)
    return model


def _refuse_group_normalization(model: ir.Model, target: int, current: int) -> None:
    if not current < _GROUP_NORMALIZATION_PER_CHANNEL <= target:
        return
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        if node.op_type == "GroupNormalization" and node.domain == "":
            raise ModelError(
                f"the model is at opset {current} and cannot be raised to {target}: node '{node.name}' is a "
                "GroupNormalization with one scale per group, which later opsets do not have; "
                f"export it again at opset {_GROUP_NORMALIZATION_PER_CHANNEL} or higher"
            )


def _convert(model: ir.Model, target: int, current: int) -> ir.Model:
    _refuse_group_normalization(model, target, current)
    held: list[ir.TensorProtocol] = []
    owners: list[ir.Value] = []
    for value in all_initializers(model):
        tensor = value.const_value
        assert tensor is not None
        if tensor.nbytes > _KEPT_INLINE_BYTES:
            value.const_value = ir.ExternalTensor(
                f"{_HELD_BACK}{len(held)}",
                0,
                tensor.nbytes,
                tensor.dtype,
                name=value.name or "",
                shape=ir.Shape(tensor.shape.numpy()),
                base_dir="",
            )
            held.append(tensor)
            owners.append(value)
    try:
        converted = version_converter.convert_version(ir.to_proto(model), target)
    except Exception as error:
        reason = str(error).strip().splitlines()[-1]
        raise ModelError(
            f"the model is at opset {current} and cannot be raised to {target}: {reason}; "
            f"export it again at opset {target} or higher"
        ) from error
    finally:
        for value, tensor in zip(owners, held, strict=True):
            value.const_value = tensor
    raised = ir.from_proto(converted)
    for value in all_initializers(raised):
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor) and str(tensor.location).startswith(_HELD_BACK):
            value.const_value = held[int(str(tensor.location).removeprefix(_HELD_BACK))]
    return raised
