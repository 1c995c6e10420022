"""The packed operators of domain `onnxq`, version 1: names, and the ONNX function body of each.

A packed operator is a model-local function, so any runtime can run it: stock onnxruntime inlines the body and
fuses it into its own MatMulNBits; with our library registered, a kernel of the same name runs instead.

| op | inputs | body |
|---|---|---|
| PackedMatMul | A [.., K], B intN [K, N], scales [ceil(K/block), N] | CastLike, DequantizeLinear(axis=0), MatMul |
| PackedMatMulZeroPoint | the same with B uintN and zero_points like scales | the same |
| PackedMatMulTransposed, ..TransposedZeroPoint | B [N, K], scales [N, ceil(K/block)] | Transpose B and scales first |
| PackedGather, ..ZeroPoint: float32 rows | data [V, K], indices, scales [V, ..] | Gather, DequantizeLinear(axis=-1) |
| PackedGatherFloat16, ..Float16ZeroPoint | the same | the same with scales cast to float16 |

Attributes: `block_size`; `compute` of matmuls (what a kernel may do with activations; the body ignores it). A gather's
result type stands in its name, because onnxruntime derives a custom op's output type from its input types only.

Signed codes are symmetric and unsigned ones have zero points: one name per signature, because an empty optional
input stops onnxruntime's fusion.
"""

from __future__ import annotations

import re

import onnx_ir as ir

__all__ = ["DOMAIN", "VERSION", "packed_gather", "packed_matmul", "packed_op_name", "whole_node"]

DOMAIN = "onnxq"
VERSION = 1


_PART = re.compile(r"/MatMulInteger(_\d+)?$")


def whole_node(name: str) -> str:
    """Name of the float model's node that a MatMulInteger, or what onnxruntime fused it into, is part of.

    The rewriter names the nodes that replace one after it, with a slash and their operator behind.
    """
    return _PART.sub("", name)


def packed_op_name(kind: str, *, zero_points: bool, half: bool = False) -> str:
    """Name of the operator for a site kind (`matmul`, `matmul_transposed`, `gather`); `half`: float16 rows."""
    stem = {"matmul": "PackedMatMul", "matmul_transposed": "PackedMatMulTransposed", "gather": "PackedGather"}[kind]
    return stem + ("Float16" if half and kind == "gather" else "") + ("ZeroPoint" if zero_points else "")


def packed_matmul(*, transposed: bool, zero_points: bool, opset: int, widen: bool = False) -> ir.Function:
    """The function behind PackedMatMul and its variants.

    Args:
        transposed: B is [N, K]; it and its scales are transposed in the body. Constant folding does that once.
        zero_points: B is unsigned and zero_points are the fourth input.
        opset: default-domain opset of the model that the function goes into.
        widen: cast B to 8 bits before transposing. onnxruntime 1.31 cannot fold a Transpose of 2-bit tensors
            ("Element type mismatch"), so a model with 2-bit transposed weights needs this; it costs stock
            onnxruntime 8 resident bits per weight, on disk and in our kernels nothing.
    """
    names = ["A", "B", "scales", *(["zero_points"] if zero_points else [])]
    inputs = {name: ir.Value(name=name) for name in names}
    nodes: list[ir.Node] = []
    operands = {name: inputs[name] for name in names[1:]}
    if transposed:
        for name in operands:
            value = operands[name]
            if widen and name != "scales":
                wide = ir.DataType.UINT8 if zero_points else ir.DataType.INT8
                value = _emit(nodes, "Cast", [value], f"{name}_wide", to=int(wide))
            operands[name] = _emit(nodes, "Transpose", [value], f"{name}_kn", perm=[1, 0])
    operands["scales"] = _emit(nodes, "CastLike", [operands["scales"], inputs["A"]], "scales_like_A")
    block_size = ir.RefAttr("block_size", "block_size", ir.AttributeType.INT)
    weight = _emit(nodes, "DequantizeLinear", list(operands.values()), "W", axis=0, block_size=block_size)
    product = _emit(nodes, "MatMul", [inputs["A"], weight], "Y")
    name = packed_op_name("matmul_transposed" if transposed else "matmul", zero_points=zero_points)
    attributes = [_required("block_size", ir.AttributeType.INT), ir.AttrString("compute", "int8")]
    return _function(name, list(inputs.values()), product, nodes, attributes, opset)


def packed_gather(*, zero_points: bool, half: bool, opset: int) -> ir.Function:
    """The function behind PackedGather and its variants; `half`: rows are float16, else float32."""
    names = ["data", "indices", "scales", *(["zero_points"] if zero_points else [])]
    inputs = {name: ir.Value(name=name) for name in names}
    wide = int(ir.DataType.UINT8 if zero_points else ir.DataType.INT8)
    nodes: list[ir.Node] = []

    def rows(name: str) -> ir.Value:
        value = inputs[name]
        if name != "scales":  # Gather has no kernels for types below a byte
            value = _emit(nodes, "Cast", [value], f"{name}_wide", to=wide)
        return _emit(nodes, "Gather", [value, inputs["indices"]], f"{name}_rows", axis=0)

    to = int(ir.DataType.FLOAT16 if half else ir.DataType.FLOAT)
    operands = [rows("data"), _emit(nodes, "Cast", [rows("scales")], "scales_cast", to=to)]
    if zero_points:
        operands.append(rows("zero_points"))
    block_size = ir.RefAttr("block_size", "block_size", ir.AttributeType.INT)
    output = _emit(nodes, "DequantizeLinear", operands, "Y", axis=-1, block_size=block_size)
    attributes = [_required("block_size", ir.AttributeType.INT)]
    name = packed_op_name("gather", zero_points=zero_points, half=half)
    return _function(name, list(inputs.values()), output, nodes, attributes, opset)


def _emit(
    nodes: list[ir.Node], op_type: str, inputs: list[ir.Value], output: str, **attributes: int | list[int] | ir.Attr
) -> ir.Value:
    converted = [
        value if isinstance(value, ir.Attr) else ir.convenience.convert_attribute(name, value)
        for name, value in attributes.items()
    ]
    node = ir.Node("", op_type, inputs, converted, outputs=[ir.Value(name=output)])
    nodes.append(node)
    return node.outputs[0]


def _required(name: str, kind: ir.AttributeType) -> ir.Attr:
    return ir.Attr(name, kind, None)


def _function(
    name: str, inputs: list[ir.Value], output: ir.Value, nodes: list[ir.Node], attributes: list[ir.Attr], opset: int
) -> ir.Function:
    graph = ir.Graph(inputs, [output], nodes=nodes, opset_imports={"": opset}, name=name)
    return ir.Function(DOMAIN, name, graph=graph, attributes=attributes)
