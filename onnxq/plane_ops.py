"""Packed operators over planes: names and function bodies (kernels/LAYOUTS.md is the contract).

| op | inputs | weight |
|---|---|---|
| PackedMatMulBits3, ..5, ..6 | A, low, high, scales | (code - 2^(bits-1)) * scale |
| PackedMatMulBits3ZeroPoint, ..5.., ..6.. | A, low, high, scales, zero_points | (code - zero_point) * scale |
| CodebookMatMul2, ..4, ..8 | A, low, codebook, scales | codebook[index] * scale |
| CodebookMatMul3 | A, low, high, codebook, scales | the same |

Attributes: `block_size`, `compute`, and `rows`, the K that planes cannot tell. Stock onnxruntime folds the unpacking
at load; the bodies with zero points then fuse to an 8-bit MatMulNBits, those with codebooks become a float weight.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxq.ops import DOMAIN
from onnxq.planes import PLANE_BITS

__all__ = ["codebook_matmul", "codebook_op_name", "plane_matmul", "plane_op_name"]


def plane_op_name(bits: int, *, zero_points: bool) -> str:
    """Operator for a matmul weight of 3, 5 or 6 bits."""
    return f"PackedMatMulBits{bits}{'ZeroPoint' if zero_points else ''}"


def codebook_op_name(bits: int) -> str:
    """Operator for indices of 2, 3, 4 or 8 bits into a codebook."""
    return f"CodebookMatMul{bits}"


def plane_matmul(bits: int, *, zero_points: bool, opset: int) -> ir.Function:
    """The function behind PackedMatMulBits3 and its like; signed weights have the middle code as zero point."""
    body = _Body(["A", *_planes(bits), "scales", *(["zero_points"] if zero_points else [])])
    scales = body.op("CastLike", [body.inputs["scales"], body.inputs["A"]])
    zero = body.inputs.get("zero_points")
    if zero is None:
        middle = ir.AttrTensor("value", ir.Tensor(np.array([1 << (bits - 1)], np.uint8)))
        zero = body.op("ConstantOfShape", [body.op("Shape", [body.inputs["scales"]])], middle)
    codes = body.codes(bits, body.attribute("rows"))
    block_size = ir.RefAttr("block_size", "block_size", ir.AttributeType.INT)
    weight = body.op("DequantizeLinear", [codes, scales, zero], ir.AttrInt64("axis", 0), block_size)
    return body.function(plane_op_name(bits, zero_points=zero_points), weight, opset)


def codebook_matmul(bits: int, *, opset: int) -> ir.Function:
    """The function behind CodebookMatMul: entries of length dim run along K."""
    body = _Body(["A", *_planes(bits), "codebook", "scales"])
    a, codebook = body.inputs["A"], body.inputs["codebook"]
    rows = body.attribute("rows")
    dim = body.op("Shape", [codebook], ir.AttrInt64("start", 1))
    indices = body.op("Cast", [body.codes(bits, body.op("Div", [rows, dim]))], ir.AttrInt64("to", ir.DataType.INT32))
    entries = body.op("Gather", [body.op("CastLike", [codebook, a]), indices])  # [K / dim, N, dim]
    along_k = body.op("Transpose", [entries], ir.AttrInt64s("perm", [0, 2, 1]))
    shape = body.op("Concat", [rows, body.constant(np.array([-1], np.int64))], ir.AttrInt64("axis", 0))
    values = body.op("Reshape", [along_k, shape])  # [K, N]
    bounds = [body.constant(np.array([0], np.int64)), rows, body.constant(np.array([1], np.int64))]
    k = body.op("Range", [body.op("Squeeze", [bound]) for bound in bounds])
    scales = body.op("CastLike", [body.inputs["scales"], a])
    of_row = body.op("Gather", [scales, body.op("Div", [k, body.attribute("block_size")])])
    return body.function(codebook_op_name(bits), body.op("Mul", [values, of_row]), opset)


def _planes(bits: int) -> list[str]:
    return ["low", "high"] if PLANE_BITS[bits][1] else ["low"]


class _Body:
    """Nodes of a function body, their values named as they come."""

    def __init__(self, names: list[str]) -> None:
        self.inputs = {name: ir.Value(name=name) for name in names}
        self._nodes: list[ir.Node] = []

    def op(self, op_type: str, inputs: list[ir.Value], *attributes: ir.Attr) -> ir.Value:
        """Add a node; returns its output."""
        output = ir.Value(name=f"{op_type.lower()}_{len(self._nodes)}")
        self._nodes.append(ir.Node("", op_type, inputs, attributes, outputs=[output]))
        return output

    def constant(self, value: np.ndarray) -> ir.Value:
        """A constant."""
        return self.op("Constant", [], ir.AttrTensor("value", ir.Tensor(value)))

    def attribute(self, name: str) -> ir.Value:
        """An attribute of the function as int64 [1]."""
        value = self.op("Constant", [], ir.RefAttr("value_int", name, ir.AttributeType.INT))
        return self.op("Unsqueeze", [value, self.constant(np.array([0], np.int64))])

    def codes(self, bits: int, rows: ir.Value) -> ir.Value:
        """uint8 codes [rows, N] from the inputs `low` and `high`."""
        low, high = PLANE_BITS[bits]
        codes = self._plane(self.inputs["low"], low, rows)
        if not high:
            return codes
        shift = self.constant(np.array(low, np.uint8))
        upper = self.op("BitShift", [self._plane(self.inputs["high"], high, rows), shift], _direction("LEFT"))
        return self.op("BitwiseOr", [codes, upper])

    def function(self, name: str, weight: ir.Value, opset: int) -> ir.Function:
        """The whole function, ending in A @ weight."""
        output = self.op("MatMul", [self.inputs["A"], weight])
        graph = ir.Graph(list(self.inputs.values()), [output], nodes=self._nodes, opset_imports={"": opset}, name=name)
        attributes = [ir.Attr(key, ir.AttributeType.INT, None) for key in ("block_size", "rows")]
        return ir.Function(DOMAIN, name, graph=graph, attributes=[*attributes, ir.AttrString("compute", "int8")])

    def _plane(self, source: ir.Value, bits: int, rows: ir.Value) -> ir.Value:
        if bits == 8:
            return source
        mask = self.constant(np.array((1 << bits) - 1, np.uint8))
        fields = []
        for field in range(8 // bits):
            shift = self.constant(np.array(field * bits, np.uint8))
            fields.append(self.op("BitwiseAnd", [self.op("BitShift", [source, shift], _direction("RIGHT")), mask]))
        stacked = self.op("Concat", fields, ir.AttrInt64("axis", 0))
        return self.op("Slice", [stacked, self.constant(np.array([0], np.int64)), rows])


def _direction(way: str) -> ir.Attr:
    return ir.AttrString("direction", way)
