"""All rules by operator. An operator that no family names stays float: nothing is known of it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from onnxq.qdq.families import arithmetic, convolution, movement, nonlinear, pooling, products
from onnxq.qdq.rule import FloatRule, Rule

__all__ = ["float_reason", "rules_by_operator"]

_RULES = (
    *convolution.RULES,
    *products.RULES,
    *arithmetic.RULES,
    *nonlinear.RULES,
    *pooling.RULES,
    *movement.RULES,
)

_FLOAT_RULES: tuple[FloatRule, ...] = (
    *convolution.FLOAT_RULES,
    *arithmetic.FLOAT_RULES,
    *nonlinear.FLOAT_RULES,
    *pooling.FLOAT_RULES,
)

_FLOAT_REASONS = MappingProxyType({op: rule.reason for rule in _FLOAT_RULES for op in rule.ops})


def rules_by_operator() -> Mapping[str, Rule]:
    """The rule of each operator that can run on codes."""
    return {op: rule for rule in _RULES for op in rule.ops}


def float_reason(op_type: str) -> str:
    """Why an operator without a rule stays float."""
    return _FLOAT_REASONS.get(op_type, "no rule of onnxq runs it on codes")
