"""Fusion guards: what stands around packed nodes is written so that onnxruntime 1.31 fuses them as planned.

An activation behind a packed matmul: onnxruntime joins `MatMul -> Relu` and `MatMul -> Add -> Clip` into one float
kernel before it looks for the DequantizeLinear in front, and the packed weight is then unpacked on every run. It does
not know the same functions under other names:

1. Relu(x) = Max(x, 0)
2. Clip(x, low, high) = Min(Max(x, low), high), either bound left out where the Clip has none

behind a packed node itself, or behind the Add of a constant that follows it.

3. A packed gather whose rows go straight into a product: onnxruntime takes the gather's DequantizeLinear and the
   weight's for two integer operands and makes a MatMulIntegerToFloat of them, which refuses zero points by row when it
   runs; without zero points it is a float MatMul that unpacks the weight on every run. Max(rows, -inf) keeps the two
   apart; it copies the rows, exactly.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from onnxq.normalise.weights import add_initializer, sole_consumer, unique_name
from onnxq.ops import DOMAIN

__all__ = ["guard_fusions", "guard_gathers"]

_VIEWS = frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Identity"})
"""Operators that onnxruntime may move a DequantizeLinear across."""


def guard_fusions(nodes: Iterable[ir.Node]) -> int:
    """Rewrite the activation behind each of these packed nodes in place; returns how many were."""
    return sum(_guard(node) for node in nodes)


def guard_gathers(nodes: Iterable[ir.Node]) -> int:
    """Put a Max behind each of these packed gathers that a product reads (case 3); returns how many got one."""
    return sum(_guard_gather(node) for node in nodes if node.op_type.startswith("PackedGather"))


def _guard_gather(gather: ir.Node) -> bool:
    rows, graph = gather.outputs[0], gather.graph
    if not isinstance(graph, ir.Graph) or not _meets_product(rows):
        return False
    readers = list(rows.uses())
    name = unique_name(graph, f"{rows.name}_lowest")
    dtype = rows.dtype or ir.DataType.FLOAT
    lowest = add_initializer(graph, name, ir.Tensor(np.array(-np.inf, dtype.numpy()), dtype=dtype, name=name))
    apart = ir.node("Max", [rows, lowest], name=f"{gather.name}/Max")
    value = apart.outputs[0]
    value.name, value.type, value.shape = unique_name(graph, f"{rows.name}_Max"), rows.type, rows.shape
    graph.insert_after(gather, apart)
    for reader, index in readers:
        reader.replace_input_with(index, value)
    return True


def _meets_product(value: ir.Value) -> bool:
    """Is it an operand of a matrix product, directly or as a view?"""
    for node, index in value.uses():
        packed = node.domain == DOMAIN and "MatMul" in node.op_type
        if (packed and index == 0) or (node.domain == "" and node.op_type in ("MatMul", "Gemm")):
            return True
        if node.domain == "" and node.op_type in _VIEWS and any(map(_meets_product, node.outputs)):
            return True
    return False


def _guard(packed: ir.Node) -> bool:
    node = sole_consumer(packed.outputs[0])
    if node is not None and node.op_type == "Add" and any(_is_constant(value) for value in node.inputs):
        node = sole_consumer(node.outputs[0])
    if node is None or node.domain != "" or node.op_type not in ("Relu", "Clip"):
        return False
    graph, source, output = node.graph, node.inputs[0], node.outputs[0]
    assert isinstance(graph, ir.Graph)
    assert source is not None
    if node.op_type == "Relu":
        bounds = [("Max", _zero(graph, output, source.dtype or ir.DataType.FLOAT))]
    else:
        given = [*node.inputs[1:], None, None][:2]
        bounds = [(op_type, bound) for op_type, bound in zip(("Max", "Min"), given, strict=True) if bound is not None]
    if not bounds:
        return False
    value = source
    for op_type, bound in bounds:
        step = ir.node(op_type, [value, bound], name=f"{node.name}/{op_type}")
        value = step.outputs[0]
        value.name, value.type, value.shape = unique_name(graph, f"{output.name}_{op_type}"), output.type, output.shape
        graph.insert_before(node, step)
    output.replace_all_uses_with(value, replace_graph_outputs=True)
    name, output.name = output.name, None
    value.name = name
    last = value.producer()
    assert last is not None
    graph.remove(node, safe=True)
    last.name = node.name
    return True


def _is_constant(value: ir.Value | None) -> bool:
    return value is not None and value.const_value is not None


def _zero(graph: ir.Graph, output: ir.Value, dtype: ir.DataType) -> ir.Value:
    name = unique_name(graph, f"{output.name}_zero")
    return add_initializer(graph, name, ir.Tensor(np.zeros((), dtype.numpy()), dtype=dtype, name=name))
