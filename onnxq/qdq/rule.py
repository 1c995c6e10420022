"""Rule: how one operator runs on integer codes, as plain data.

Each family of operators has a small file of rules under `families/`. What a rule says was seen on onnxruntime
1.31 (x86 with VNNI, one thread): which pattern of Q/DQ it fuses, and whether the result is faster.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

__all__ = ["FloatRule", "Joins", "Rule", "always", "constant_of", "every_input", "never_refuses", "only_first"]

Joins = Literal["anchor", "between", "after"]
"""When a node runs on codes: always (it is what quantization is for), if codes come in and are wanted behind it,
or as soon as codes come in (its output is so much smaller that dequantizing behind it is always cheaper)."""


@dataclass(frozen=True, slots=True)
class FloatRule:
    """Operators that stay float, and why."""

    ops: tuple[str, ...]
    reason: str


def never_refuses(node: ir.Node) -> str | None:
    """The condition of a rule that has none."""
    del node
    return None


def always(reason: str) -> Callable[[ir.Node], str | None]:
    """A condition that holds for every node."""
    return lambda node: reason


def only_first(node: ir.Node) -> tuple[int, ...]:
    """Input 0 carries the activation; the others are weights, shapes or indices."""
    del node
    return (0,)


def every_input(node: ir.Node) -> tuple[int, ...]:
    """All inputs carry activations."""
    return tuple(range(len(node.inputs)))


@dataclass(frozen=True, slots=True)
class Rule:
    """Operators that can run on codes.

    Attributes:
        ops: operators of the default domain.
        kernel: operator in onnxruntime's optimised graph; None: the operator itself, on codes.
        joins: when it does.
        reason: why then.
        operands: indices of the inputs that are activations (or constants in an activation's place).
        refuses: a reason why this very node cannot, or None.
        shares: input and output have one scale, since codes are only moved or compared.
        slower: a reason why this very node would be slower on codes, or None; it counts unless somebody insists.
        float_output: the kernel may leave the sums in float when nobody behind it wants codes.
    """

    ops: tuple[str, ...]
    kernel: str | None
    joins: Joins
    reason: str
    operands: Callable[[ir.Node], tuple[int, ...]] = only_first
    refuses: Callable[[ir.Node], str | None] = never_refuses
    shares: bool = False
    slower: Callable[[ir.Node], str | None] = never_refuses
    float_output: bool = False


def constant_of(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor behind a value that cannot change at run time; None for anything else."""
    if value is None or value.const_value is None or value.is_graph_input() or not value.is_initializer():
        return None
    return value.const_value
