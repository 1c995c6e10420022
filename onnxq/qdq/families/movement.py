"""Operators that move values without computing: on codes they move a quarter of the bytes, under one scale.

Pad fuses with no Q/DQ, so it is written over the codes themselves, padding with the code of its constant.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxq.qdq.rule import Rule, constant_of, every_input

__all__ = ["RULES"]


def _gather_refuses(node: ir.Node) -> str | None:
    return "it reads rows of a constant table" if constant_of(node.inputs[0]) is not None else None


def _pad_refuses(node: ir.Node) -> str | None:
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return None
    tensor = constant_of(node.inputs[2])
    if tensor is None or tensor.numpy().any():
        return "it pads with something else than zero"
    return None


def _split_refuses(node: ir.Node) -> str | None:
    if all(value.uses() or value.is_graph_output() for value in node.outputs):
        return None
    return "nobody reads one of its outputs: onnxruntime fuses it only with Q behind all of them"


def _resize_refuses(node: ir.Node) -> str | None:
    mode = node.attributes.get_string("mode", "nearest")
    if mode != "nearest":
        return f"its mode is {mode}: onnxruntime fuses only nearest with Q/DQ"
    return None


RULES = (
    Rule(
        ops=("Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Expand", "Identity", "Tile"),
        kernel=None,
        joins="between",
        reason="it moves codes",
        shares=True,
    ),
    Rule(
        ops=("DepthToSpace", "SpaceToDepth"),
        kernel=None,
        joins="between",
        reason="it moves codes",
        shares=True,
    ),
    Rule(ops=("Split",), kernel=None, joins="between", reason="it moves codes", shares=True, refuses=_split_refuses),
    Rule(ops=("Gather",), kernel=None, joins="between", reason="it moves codes", shares=True, refuses=_gather_refuses),
    Rule(ops=("Pad",), kernel=None, joins="between", reason="it moves codes", shares=True, refuses=_pad_refuses),
    Rule(
        ops=("Resize",),
        kernel=None,
        joins="between",
        reason="it repeats codes: .02 ms where float takes .35",
        shares=True,
        refuses=_resize_refuses,
    ),
    Rule(
        ops=("Concat",),
        kernel="QLinearConcat",
        joins="between",
        reason="it moves codes and brings them to one scale through tables: .01 ms where float takes .25",
        operands=every_input,
    ),
)
