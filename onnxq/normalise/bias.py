"""A bias of shape [1, N] behind a matmul becomes [N], the form that onnxruntime fuses.

    Add(MatMul(A, W), b [1, .., 1, N]) = Add(MatMul(A, W), b [N])     where the product has at least b's rank

With a bias of rank 2 onnxruntime makes a Gemm of the pair before it looks for DequantizeLinear, and the
product runs in float. The rank of the product must be known: a larger bias rank would raise it.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxq.normalise.weights import constant, derive, is_float_constant

__all__ = ["flatten_biases"]


def flatten_biases(model: ir.Model) -> int:
    """Flatten every such bias in place; returns how many."""
    return sum(_flatten(node) for node in list(ir.traversal.RecursiveGraphIterator(model.graph)))


def _flatten(add: ir.Node) -> bool:
    if add.op_type != "Add" or add.domain != "":
        return False
    for index, value in enumerate(add.inputs):
        product = add.inputs[1 - index]
        if value is None or product is None or not is_float_constant(value) or not _is_product(product):
            continue
        tensor = constant(value)
        assert tensor is not None
        shape = tuple(int(size) for size in tensor.shape.numpy())
        if len(shape) < 2 or any(size != 1 for size in shape[:-1]) or _rank(product) < len(shape):
            continue
        add.replace_input_with(index, derive(value, "_flat", lambda x: x.reshape(-1), (shape[-1],)))
        return True
    return False


def _is_product(value: ir.Value) -> bool:
    producer = value.producer()
    return producer is not None and producer.op_type == "MatMul" and is_float_constant(producer.inputs[1])


def _rank(product: ir.Value) -> int:
    """Rank of the product; 0 when unknown."""
    producer = product.producer()
    assert producer is not None
    operand = producer.inputs[0]
    for value in (product, operand):
        if value is not None and value.shape is not None:
            return len(value.shape)
    return 0
