"""Blocks: a node that can run on codes, with the nodes behind it that its kernel does along the way.

1. MatMul [M, K] -> Add of a constant [N]: written as Gemm, whose integer kernel adds the bias to its int32 sums.
   Only where the activation is known to have two dims, since Gemm takes no more.
2. Relu, or Clip between constants that enclose zero: dropped, since the range of the block's output ends where
   theirs does and QuantizeLinear saturates there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnxq.qdq.families.nonlinear import SATURATING
from onnxq.qdq.rule import Rule, constant_of

__all__ = ["Block", "Bounds", "build_block"]

Bounds = tuple[float, float]
"""(low, high) that the block's output never leaves."""

UNBOUNDED: Bounds = (-np.inf, np.inf)


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """One kernel's worth of nodes.

    Attributes:
        node: what computes.
        rule: how it runs on codes.
        bias: the Add of case 1.
        saturation: the Relu or Clip of case 2.
        bounds: what `saturation` limits the output to.
    """

    node: ir.Node
    rule: Rule
    bias: ir.Node | None = None
    saturation: ir.Node | None = None
    bounds: Bounds = UNBOUNDED

    @property
    def operands(self) -> tuple[ir.Value, ...]:
        """Inputs that carry activations, or constants in their place."""
        values = [self.node.inputs[index] for index in self.rule.operands(self.node)]
        return tuple(value for value in values if value is not None)

    @property
    def outputs(self) -> tuple[ir.Value, ...]:
        """What the last node of the block writes."""
        last = self.saturation or self.bias or self.node
        return tuple(last.outputs)

    @property
    def absorbed(self) -> tuple[ir.Node, ...]:
        """The nodes behind the first one, in order."""
        return tuple(node for node in (self.bias, self.saturation) if node is not None)

    def without_saturation(self) -> Block:
        """The block when its output stays float: nothing saturates then."""
        return replace(self, saturation=None, bounds=UNBOUNDED)


def build_block(node: ir.Node, rule: Rule) -> Block:
    """The node with everything that its kernel can absorb."""
    if rule.shares:
        return Block(node, rule)
    last, bias = node, None
    if node.op_type == "MatMul":
        bias = _bias(node)
        last = bias or node
    follower = _sole_reader(last.outputs[0])
    bounds = _bounds(follower) if follower is not None else None
    if bounds is None:
        return Block(node, rule, bias)
    return Block(node, rule, bias, follower, bounds)


def _sole_reader(value: ir.Value) -> ir.Node | None:
    """The only reader of a value, in the same graph; None if there is another, or it leaves the graph."""
    readers = [usage.node for usage in value.uses()]
    if len(readers) != 1 or value.is_graph_output():
        return None
    producer = value.producer()
    return readers[0] if producer is not None and readers[0].graph is producer.graph else None


def _bias(matmul: ir.Node) -> ir.Node | None:
    activation, weight = matmul.inputs[0], constant_of(matmul.inputs[1])
    rank = len(activation.shape) if activation is not None and activation.shape is not None else None
    add = _sole_reader(matmul.outputs[0])
    if rank != 2 or weight is None or add is None or add.op_type != "Add":
        return None
    other = add.inputs[1] if add.inputs[0] is matmul.outputs[0] else add.inputs[0]
    bias = constant_of(other)
    if bias is None or tuple(bias.shape.numpy()) != (int(weight.shape.numpy()[1]),):
        return None
    return add if bias.dtype == ir.DataType.FLOAT else None


def _bounds(node: ir.Node) -> Bounds | None:
    if node.op_type not in SATURATING or node.domain != "":
        return None
    if node.op_type == "Relu":
        return 0.0, np.inf
    low, high = (_bound(node, index, default) for index, default in ((1, -np.inf), (2, np.inf)))
    if low is None or high is None or low > 0 or high < 0:
        return None
    return low, high


def _bound(node: ir.Node, index: int, default: float) -> float | None:
    if len(node.inputs) <= index or node.inputs[index] is None:
        return default
    tensor = constant_of(node.inputs[index])
    return None if tensor is None else float(tensor.numpy().astype(np.float64).reshape(-1)[0])
