"""Matrix products with a constant weight.

| pattern | kernel |
|---|---|
| DQ(x), DQ(W per column) -> MatMul -> Q | QLinearMatMul |
| the same without Q behind it | MatMulIntegerToFloat: the sums stay float, which costs no accuracy |
| DQ(x [M, K]), DQ(W), DQ(b int32) -> Gemm, with or without Q | QGemm; MatMul + Add over two dims is written so |

Measured, with Q in front: 128x384x1536 .14 ms where float takes .87; 1x96x24 .007 / .005. A product of two
activations (attention) takes .44 / .35 over 12 heads of 256x32: quantizing both operands costs more than is won.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxq.qdq.rule import Rule, constant_of

__all__ = ["RULES", "SMALLEST"]

SMALLEST = 16384
"""Weights K x N below which the product takes less time than quantizing its input (measured at M = 1, 16, 128)."""


def _refuses(node: ir.Node) -> str | None:
    weight = constant_of(node.inputs[1])
    if weight is None:
        return "both operands are computed at run time; quantizing both costs more time than the product saves"
    if len(weight.shape) != 2:
        return f"its weight has rank {len(weight.shape)}; the integer kernels take one [K, N] matrix"
    if weight.dtype != ir.DataType.FLOAT:
        return f"its weight is {weight.dtype.name}: onnxruntime's integer kernels have float32 around them"
    return None


def _slower(node: ir.Node) -> str | None:
    weight = constant_of(node.inputs[1])
    if weight is not None and weight.size < SMALLEST:
        return f"fewer than {SMALLEST} weights: quantizing its input takes longer than the product"
    return None


RULES = (
    Rule(
        ops=("MatMul",),
        kernel="MatMulIntegerToFloat",
        joins="anchor",
        reason="integer products are two to six times faster",
        refuses=_refuses,
        slower=_slower,
        float_output=True,
    ),
)
