"""Trained: what a model that was trained with quantization brings along, taken over instead of decided again.

1. x -> Q -> DQ (fake quantization of an activation): the pair goes, its scale and zero point are kept for x.
2. DQ of a constant, or DQ(Q(constant)): becomes the float constant that it computes; scale and zero point are kept
   for it, so that quantizing it gives the same codes again.
3. Q or DQ in other places (an int8 model input, a real integer operator) stays as it is.

What is left is an ordinary float graph, in which layout and rules find the same integer kernels as in any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import onnx_ir as ir

from onnxq.affine import FloatArray, QuantizedWeight, encode
from onnxq.model import Model
from onnxq.normalise.constants import constants_to_initializers
from onnxq.qdq.activations import ActivationFormat
from onnxq.qdq.rule import constant_of
from onnxq.scheme import Scheme

__all__ = ["NOTHING", "Trained", "TrainedRange", "TrainedWeight", "lift_trained"]

_TYPES = {
    ir.DataType.UINT8: ActivationFormat(8, signed=False),
    ir.DataType.INT8: ActivationFormat(8, signed=True),
    ir.DataType.UINT16: ActivationFormat(16, signed=False),
    ir.DataType.INT16: ActivationFormat(16, signed=True),
}


@dataclass(frozen=True, slots=True)
class TrainedRange:
    """Scale and zero point of an activation, as trained."""

    format: ActivationFormat
    scale: float
    zero_point: int

    def in_type(self, *, signed: bool) -> TrainedRange:
        """The same grid in codes that are signed, or not."""
        form = ActivationFormat(self.format.bits, signed=signed, symmetric=self.format.symmetric)
        return TrainedRange(form, self.scale, self.zero_point - self.format.qmin + form.qmin)


@dataclass(frozen=True, slots=True)
class TrainedWeight:
    """Scales and zero points of a weight, as trained, for int8 codes.

    Attributes:
        scales: one per output channel, or one in all.
        zero_points: the same number of them; those of uint8 codes are shifted by 128.
    """

    scales: tuple[float, ...]
    zero_points: tuple[int, ...]

    def reproduces(self, weight: FloatArray) -> bool:
        """Every number of the weight float32 [K, N] lies on the grid, to float32 precision."""
        scales, zero_points = np.array(self.scales, np.float32), np.array(self.zero_points, np.float32)
        if scales.size not in (1, weight.shape[1]):
            return False
        codes = np.rint(weight / scales)
        in_range = (codes + zero_points >= -128) & (codes + zero_points <= 127)
        return bool(in_range.all() and np.allclose(codes * scales, weight, rtol=1e-5, atol=0))

    def quantize(self, weight: FloatArray, scheme: Scheme) -> QuantizedWeight:
        """The codes that were trained, of a weight float32 [K, N] that lies on the grid.

        Args:
            weight: see `reproduces`.
            scheme: 8 bits; unsigned unless all zero points are 0.
        """
        scales = np.array(self.scales, np.float32).reshape(1, -1)
        zero_points = np.array(self.zero_points, np.float32).reshape(1, -1)
        if scheme.symmetric:
            return QuantizedWeight(encode(weight, scales, None, scheme).astype(np.int8), scales, None, scheme)
        shifted = zero_points + 128
        codes = encode(weight, scales, shifted, scheme).astype(np.uint8)
        return QuantizedWeight(codes, scales, shifted.astype(np.uint8), scheme)


@dataclass(frozen=True, slots=True)
class Trained:
    """Everything taken over.

    Attributes:
        ranges: of activations, by tensor name.
        weights: by initializer name.
    """

    ranges: Mapping[str, TrainedRange] = field(default_factory=lambda: MappingProxyType({}))
    weights: Mapping[str, TrainedWeight] = field(default_factory=lambda: MappingProxyType({}))

    def __bool__(self) -> bool:
        return bool(self.ranges or self.weights)

    def weight(self, name: str) -> TrainedWeight | None:
        """Of an initializer, or of what normalising derived from it (NAME_transposed, NAME_matrix)."""
        sources = [known for known in self.weights if name == known or name.startswith(f"{known}_")]
        return self.weights[max(sources, key=len)] if sources else None


NOTHING = Trained()
"""Of a model that was not trained with quantization."""


def lift_trained(model: Model) -> tuple[Model, Trained]:
    """Take fake quantization out of a model and keep what it says.

    Returns:
        The float model (the same object if it has no Q/DQ), and what was trained.
    """
    if not any(node.op_type == "DequantizeLinear" for node in model.ir.graph):
        return model, NOTHING
    graph = model.ir.clone()
    constants_to_initializers(graph)
    ranges: dict[str, TrainedRange] = {}
    weights: dict[str, TrainedWeight] = {}
    for node in list(graph.graph):
        if node.op_type == "DequantizeLinear" and node.domain == "":
            _lift(graph.graph, node, ranges, weights)
    lifted = Model(model.path, graph, model.fingerprint, model.custom_op_libraries)
    return lifted, Trained(MappingProxyType(ranges), MappingProxyType(weights))


def _lift(
    graph: ir.Graph, dequantize: ir.Node, ranges: dict[str, TrainedRange], weights: dict[str, TrainedWeight]
) -> None:
    codes = dequantize.inputs[0]
    assert codes is not None
    quantize = codes.producer()
    if constant_of(codes) is not None:
        _lift_constant(graph, dequantize, constant_of(codes), weights)
    elif quantize is None or quantize.op_type != "QuantizeLinear" or quantize.domain != "":
        return  # 3
    elif (source := constant_of(quantize.inputs[0])) is not None:
        _lift_constant(graph, dequantize, _quantized(quantize, source), weights)
        if not quantize.outputs[0].uses():
            graph.remove(quantize, safe=True)
    else:
        _lift_activation(graph, dequantize, quantize, ranges)


def _lift_activation(graph: ir.Graph, dequantize: ir.Node, quantize: ir.Node, ranges: dict[str, TrainedRange]) -> None:
    scale, zero_point = _parameters(dequantize)
    form = _TYPES.get(zero_point.dtype) if zero_point is not None else _TYPES[ir.DataType.UINT8]
    if scale is None or form is None or scale.size != 1 or constant_of(dequantize.inputs[1]) is None:
        return
    x, y = quantize.inputs[0], dequantize.outputs[0]
    assert x is not None
    leaves = y.is_graph_output()
    y.replace_all_uses_with(x, replace_graph_outputs=True)
    if leaves and not x.is_graph_input():
        x.name, y.name = y.name, None
    zero = 0 if zero_point is None else int(zero_point.numpy().reshape(-1)[0])
    ranges.setdefault(x.name or "", TrainedRange(form, float(scale.numpy().reshape(-1)[0]), zero))
    graph.remove(dequantize, safe=True)
    if not quantize.outputs[0].uses():
        graph.remove(quantize, safe=True)


def _lift_constant(
    graph: ir.Graph,
    dequantize: ir.Node,
    codes: ir.TensorProtocol | None,
    weights: dict[str, TrainedWeight],
) -> None:
    """Case 2. Blocked scales are left alone: they belong to packed weights, not to integer kernels."""
    scale, zero_point = _parameters(dequantize)
    if codes is None or scale is None or (dequantize.attributes.get_int("block_size", 0) or 0) > 0:
        return
    axis = dequantize.attributes.get_int("axis", 1)
    values = _dequantized(codes, scale, zero_point, axis)
    output = dequantize.outputs[0]
    name = output.name or ""
    tensor = ir.Tensor(values, dtype=ir.DataType.FLOAT, name=name)
    constant = ir.Value(
        name=name, shape=ir.Shape(values.shape), type=ir.TensorType(ir.DataType.FLOAT), const_value=tensor
    )
    output.replace_all_uses_with(constant, replace_graph_outputs=True)
    output.name = None
    graph.remove(dequantize, safe=True)
    graph.register_initializer(constant)
    if codes.dtype in (ir.DataType.INT8, ir.DataType.UINT8):
        zeros = np.zeros(scale.size, np.int64) if zero_point is None else zero_point.numpy().reshape(-1)
        shift = 128 if codes.dtype == ir.DataType.UINT8 else 0
        weights[name] = TrainedWeight(
            tuple(map(float, scale.numpy().reshape(-1))), tuple(int(zero) - shift for zero in zeros)
        )


def _parameters(node: ir.Node) -> tuple[ir.TensorProtocol | None, ir.TensorProtocol | None]:
    zero_point = constant_of(node.inputs[2]) if len(node.inputs) > 2 else None
    return constant_of(node.inputs[1]), zero_point


def _along(array: np.ndarray, axis: int, rank: int) -> np.ndarray:
    """Per-channel parameters in a shape that broadcasts over the tensor."""
    if array.size == 1:
        return array.reshape(())
    return array.reshape([-1 if index == axis % rank else 1 for index in range(rank)])


def _dequantized(
    codes: ir.TensorProtocol, scale: ir.TensorProtocol, zero_point: ir.TensorProtocol | None, axis: int
) -> FloatArray:
    rank = len(codes.shape)
    values = codes.numpy().astype(np.float32)
    if zero_point is not None:
        values = values - _along(zero_point.numpy().astype(np.float32), axis, rank)
    return np.asarray(values * _along(scale.numpy().astype(np.float32), axis, rank), dtype=np.float32)


def _quantized(quantize: ir.Node, source: ir.TensorProtocol) -> ir.TensorProtocol | None:
    """The codes of a float constant."""
    scale, zero_point = _parameters(quantize)
    if scale is None:
        return None
    dtype = zero_point.dtype if zero_point is not None else ir.DataType.UINT8
    if dtype not in (ir.DataType.INT8, ir.DataType.UINT8):
        return None
    axis, rank, limits = quantize.attributes.get_int("axis", 1), len(source.shape), np.iinfo(dtype.numpy())
    codes = np.rint(source.numpy().astype(np.float32) / _along(scale.numpy(), axis, rank))
    if zero_point is not None:
        codes = codes + _along(zero_point.numpy().astype(np.float32), axis, rank)
    return ir.Tensor(np.clip(codes, limits.min, limits.max).astype(dtype.numpy()), dtype=dtype)
