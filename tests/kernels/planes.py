"""Weights in planes of bytes: packing, unpacking, and the function bodies, as kernels/LAYOUTS.md defines them."""

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

PLANE_BITS = {2: (2, 0), 3: (2, 1), 4: (4, 0), 5: (4, 1), 6: (4, 2), 8: (8, 0)}  # code = low | high << low bits


def pack_plane(codes: np.ndarray, bits: int) -> np.ndarray:
    """uint8 codes [K, N] below 2^bits -> uint8 [ceil(K * bits / 8), N]."""
    fields, run = 8 // bits, -(-codes.shape[0] * bits // 8)
    padded = np.zeros((fields * run, codes.shape[1]), np.uint8)
    padded[: len(codes)] = codes
    return sum(padded[j * run : (j + 1) * run] << (j * bits) for j in range(fields)).astype(np.uint8)


def unpack_plane(plane: np.ndarray, bits: int, rows: int) -> np.ndarray:
    """The inverse: uint8 codes [rows, N]."""
    return np.concatenate([plane >> (j * bits) & ((1 << bits) - 1) for j in range(8 // bits)])[:rows]


@dataclass(frozen=True)
class PlaneWeight:
    """W = (codes - zero_points) * scales, or codebook[codes] * scales; blocks along K.

    codes: uint8 [K, N] (codebook: [K / dim, N]); scales [ceil(K / block), N];
    zero_points: uint8 like scales, or None; codebook: [entries, dim], or None.
    """

    codes: np.ndarray
    scales: np.ndarray
    zero_points: np.ndarray | None
    codebook: np.ndarray | None
    bits: int
    block: int

    @property
    def rows(self) -> int:
        return len(self.codes) * (1 if self.codebook is None else self.codebook.shape[1])

    @property
    def name(self) -> str:
        if self.codebook is not None:
            return f"CodebookMatMul{self.bits}"
        return f"PackedMatMulBits{self.bits}{'ZeroPoint' * (self.zero_points is not None)}"

    def dequantized(self) -> np.ndarray:
        """float64 [K, N]."""
        block = np.arange(self.rows) // self.block
        if self.codebook is not None:
            values = self.codebook.astype(np.float64)[self.codes].transpose(0, 2, 1).reshape(self.rows, -1)
        else:
            zero = 1 << (self.bits - 1) if self.zero_points is None else self.zero_points[block].astype(np.float64)
            values = self.codes.astype(np.float64) - zero
        return values * self.scales.astype(np.float64)[block]

    def initializers(self) -> list[onnx.TensorProto]:
        low, high = PLANE_BITS[self.bits]
        arrays = {"low": pack_plane(self.codes & ((1 << low) - 1), low)}
        if high:
            arrays["high"] = pack_plane(self.codes >> low, high)
        if self.codebook is not None:
            arrays["codebook"] = self.codebook
        arrays["scales"] = self.scales
        if self.zero_points is not None:
            arrays["zero_points"] = self.zero_points
        return [numpy_helper.from_array(np.ascontiguousarray(x), name) for name, x in arrays.items()]


class Body:
    """The nodes of a function body, with names made up as they come."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []

    def op(self, kind: str, *inputs: str, output: str | None = None, **attributes) -> str:
        output = output or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def constant(self, value: np.ndarray) -> str:
        return self.op("Constant", value=numpy_helper.from_array(value))

    def refer(self, name: str, attribute: str) -> None:
        """The last node's attribute `name` is the function's attribute `attribute`."""
        reference = onnx.AttributeProto(name=name, ref_attr_name=attribute, type=onnx.AttributeProto.INT)
        self.nodes[-1].attribute.append(reference)

    def attribute(self, name: str) -> str:
        """A function attribute as an int64 [1]."""
        value = self.op("Constant")
        self.refer("value_int", name)
        return self.op("Unsqueeze", value, self.constant(np.array([0], np.int64)))

    def plane(self, source: str, bits: int, rows: str) -> str:
        if bits == 8:
            return source
        mask = self.constant(np.array((1 << bits) - 1, np.uint8))
        fields = []
        for j in range(8 // bits):
            shift = self.constant(np.array(j * bits, np.uint8))
            fields.append(self.op("BitwiseAnd", self.op("BitShift", source, shift, direction="RIGHT"), mask))
        return self.op("Slice", self.op("Concat", *fields, axis=0), self.constant(np.array([0], np.int64)), rows)

    def codes(self, bits: int, rows: str) -> str:
        low, high = PLANE_BITS[bits]
        codes = self.plane("low", low, rows)
        if not high:
            return codes
        upper = self.op(
            "BitShift", self.plane("high", high, rows), self.constant(np.array(low, np.uint8)), direction="LEFT"
        )
        return self.op("BitwiseOr", codes, upper)


def plane_function(weight: PlaneWeight) -> onnx.FunctionProto:
    body = Body()
    rows = body.attribute("rows")
    scales = body.op("CastLike", "scales", "A")
    if weight.codebook is None:
        zero = "zero_points"
        if weight.zero_points is None:
            middle = numpy_helper.from_array(np.array([1 << (weight.bits - 1)], np.uint8))
            zero = body.op("ConstantOfShape", body.op("Shape", "scales"), value=middle)
        w = body.op("DequantizeLinear", body.codes(weight.bits, rows), scales, zero, axis=0)
        body.refer("block_size", "block_size")
    else:
        indices = body.codes(weight.bits, body.op("Div", rows, body.op("Shape", "codebook", start=1)))
        values = body.op("Gather", body.op("CastLike", "codebook", "A"), body.op("Cast", indices, to=TensorProto.INT32))
        shape = body.op("Concat", rows, body.constant(np.array([-1], np.int64)), axis=0)
        values = body.op("Reshape", body.op("Transpose", values, perm=[0, 2, 1]), shape)
        k = [
            body.op("Squeeze", x)
            for x in (body.constant(np.array([0], np.int64)), rows, body.constant(np.array([1], np.int64)))
        ]
        block = body.op("Div", body.op("Range", *k), body.attribute("block_size"))
        w = body.op("Mul", values, body.op("Gather", scales, block))
    body.op("MatMul", "A", w, output="Y")
    return helper.make_function(
        "onnxq", weight.name, ["A", *[t.name for t in weight.initializers()]], ["Y"], body.nodes,
        [helper.make_opsetid("", 21)], attributes=["block_size", "rows"],
        attribute_protos=[helper.make_attribute("compute", "int8")],
    )  # fmt: skip


def plane_model(weight: PlaneWeight, *, a=TensorProto.FLOAT, compute="int8", initializers=None, **attributes) -> bytes:
    """A model of one node "/fc"; `initializers` and `attributes` replace parts of it."""
    tensors = initializers or weight.initializers()
    values = {"block_size": weight.block, "rows": weight.rows, "compute": compute} | attributes
    node = helper.make_node(
        weight.name, ["A", *[t.name for t in tensors]], ["Y"], domain="onnxq", name="/fc",
        **{name: value for name, value in values.items() if value is not None},
    )  # fmt: skip
    graph = helper.make_graph(
        [node], "one_node",
        [helper.make_tensor_value_info("A", a, ["m", weight.rows])],
        [helper.make_tensor_value_info("Y", a, ["m", weight.codes.shape[1]])],
        tensors,
    )  # fmt: skip
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("onnxq", 1)]
    model = helper.make_model(graph, opset_imports=imports, functions=[plane_function(weight)], ir_version=10)
    return model.SerializeToString()
