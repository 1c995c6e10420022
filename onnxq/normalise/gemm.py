"""Gemm over a constant weight becomes Transpose, MatMul and Add, the form that onnxruntime fuses.

    Gemm(A, B, C, alpha, beta, transA, transB) = alpha * op(A) @ op(B) + beta * C

onnxruntime never fuses DequantizeLinear into a Gemm with transB=1, so the weight has to be a MatMul's.

1. transA: a Transpose in front of A.
2. transB: a Transpose of the weight (the rule `transposed_weights` folds it where nobody else reads the weight).
3. alpha != 1: a Mul behind the product, since the weight may be shared.
4. C: an Add; beta != 1 is folded into a constant C, else a Mul on C. beta = 0 drops C, as the standard says.

The Gemm's output keeps its name. A Gemm whose B is not a constant float matrix is left alone.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxq.normalise.weights import add_initializer, derive, is_float_constant, unique_name

__all__ = ["gemm_to_matmul"]


def gemm_to_matmul(model: ir.Model) -> int:
    """Rewrite every Gemm over a constant float weight in place; returns how many."""
    gemms = [
        node
        for node in ir.traversal.RecursiveGraphIterator(model.graph)
        if node.op_type == "Gemm" and node.domain == "" and is_float_constant(node.inputs[1])
    ]
    for node in gemms:
        _rewrite(node)
    return len(gemms)


def _rewrite(node: ir.Node) -> None:
    graph, (a, b), output = node.graph, node.inputs[:2], node.outputs[0]
    assert isinstance(graph, ir.Graph)
    assert a is not None
    assert b is not None
    c = node.inputs[2] if len(node.inputs) > 2 else None
    beta = node.attributes.get_float("beta", 1.0)
    steps: list[tuple[str, list[ir.Value], dict[str, list[int]]]] = []
    if node.attributes.get_int("transB", 0):  # 2
        b = _emit(node, "Transpose", [b], perm=[1, 0])
    if node.attributes.get_int("transA", 0):  # 1
        a = _emit(node, "Transpose", [a], perm=[1, 0])
    steps.append(("MatMul", [a, b], {}))
    alpha = node.attributes.get_float("alpha", 1.0)
    if alpha != 1.0:  # 3
        steps.append(("Mul", [_scalar(graph, node, "alpha", alpha, output)], {}))
    if c is not None and beta != 0.0:  # 4
        steps.append(("Add", [_scaled_bias(node, c, beta)], {}))

    value: ir.Value | None = None
    for op_type, inputs, _ in steps:
        value = _emit(node, op_type, [*([value] if value is not None else []), *inputs])
    assert value is not None
    last = value.producer()
    assert last is not None
    output.replace_all_uses_with(value, replace_graph_outputs=True)
    name, output.name = output.name, None
    value.name, value.type, value.shape = name, output.type, output.shape
    graph.remove(node, safe=True)
    _give_matmul_the_gemms_name(last, node.name)


def _give_matmul_the_gemms_name(last: ir.Node, name: str | None) -> None:
    """The MatMul takes the Gemm's name: it is what users see in reports and match with --skip."""
    node: ir.Node | None = last
    while node is not None and node.op_type != "MatMul":
        first = node.inputs[0]
        node = first.producer() if first is not None else None
    assert node is not None
    node.name = name


def _scaled_bias(node: ir.Node, c: ir.Value, beta: float) -> ir.Value:
    if beta == 1.0:
        return c
    if is_float_constant(c):
        return derive(c, f"_times_{beta:.9g}", lambda x: x * np.float32(beta))
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    return _emit(node, "Mul", [c, _scalar(graph, node, "beta", beta, c)])


def _scalar(graph: ir.Graph, node: ir.Node, what: str, number: float, like: ir.Value) -> ir.Value:
    dtype = like.dtype or (node.inputs[1].dtype if node.inputs[1] is not None else None) or ir.DataType.FLOAT
    name = unique_name(graph, f"{node.outputs[0].name}_{what}")
    return add_initializer(graph, name, ir.Tensor(np.array(number, dtype.numpy()), dtype=dtype, name=name))


def _emit(before: ir.Node, op_type: str, inputs: list[ir.Value], **attributes: list[int]) -> ir.Value:
    graph = before.graph
    assert isinstance(graph, ir.Graph)
    name = f"{before.name}/{op_type}" if before.name else None
    node = ir.node(op_type, inputs, attributes=attributes or None, name=name)
    node.outputs[0].name = unique_name(graph, f"{before.outputs[0].name}_{op_type.lower()}")
    node.outputs[0].type = inputs[0].type
    graph.insert_before(before, node)
    return node.outputs[0]
