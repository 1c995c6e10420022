"""Pooling.

| operator | on codes |
|---|---|
| GlobalAveragePool | QLinearGlobalAveragePool, .01 ms where float takes .05, whoever reads its output |
| MaxPool | the largest code is that of the largest value: one scale for both sides; NhwcMaxPool behind a Conv |
| AveragePool | QLinearAveragePool takes .40 ms where DQ, AveragePool, Q take .09 |
"""

from __future__ import annotations

import onnx_ir as ir

from onnxq.qdq.rule import FloatRule, Rule, always

__all__ = ["FLOAT_RULES", "RULES"]


def _max_pool_refuses(node: ir.Node) -> str | None:
    return "its indices are read too" if len(node.outputs) > 1 and node.outputs[1].uses() else None


RULES = (
    Rule(
        ops=("GlobalAveragePool",),
        kernel="QLinearGlobalAveragePool",
        joins="after",
        reason="it sums codes, and what is left to dequantize is small",
    ),
    Rule(
        ops=("MaxPool",),
        kernel="MaxPool",
        joins="between",
        reason="it compares codes",
        refuses=_max_pool_refuses,
        shares=True,
    ),
    Rule(
        ops=("AveragePool",),
        kernel="QLinearAveragePool",
        joins="between",
        reason="asked for by --integer-nodes all",
        slower=always("onnxruntime's integer AveragePool is slower than DQ, AveragePool, Q (.40 against .09 ms)"),
    ),
)

FLOAT_RULES = (
    FloatRule(("GlobalMaxPool", "LpPool", "GlobalLpPool"), "onnxruntime has no integer kernel for it"),
    FloatRule(("ReduceMean", "ReduceSum", "ReduceMax", "ReduceL2"), "onnxruntime fuses no Q/DQ with it"),
)
