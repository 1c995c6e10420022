"""Fusion guards: an activation behind a packed matmul is written so that onnxruntime still fuses the matmul.

onnxruntime 1.31 joins `MatMul -> Relu` and `MatMul -> Add -> Clip` into one float kernel before it looks for the
DequantizeLinear in front, and the packed weight is then unpacked on every run. It does not know the same functions
under other names:

1. Relu(x) = Max(x, 0)
2. Clip(x, low, high) = Min(Max(x, low), high), either bound left out where the Clip has none

behind a packed node itself, or behind the Add of a constant that follows it.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from onnxq.normalise.weights import add_initializer, sole_consumer, unique_name

__all__ = ["guard_fusions"]


def guard_fusions(nodes: Iterable[ir.Node]) -> int:
    """Rewrite the activation behind each of these packed nodes in place; returns how many were."""
    return sum(_guard(node) for node in nodes)


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
