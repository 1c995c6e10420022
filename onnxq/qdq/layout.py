"""Layout: which nodes of a graph run on integer codes, which tensors become codes, and why every other node is float.

1. Every node that has a rule, and no condition against it, is taken for an integer node.
2. Nodes are given up until none more has to be: one that wants codes on both sides (`between`) and has them on
   one only, one whose rule asks for codes in front (`after`) and gets none. What is left are paths of integer nodes
   between anchors.
3. A kernel that may leave its sums in float does so unless everything behind it wants codes.
4. A node that only moves codes shares the scale of what it moves.

Only the main graph: inside a branch or a loop, nodes stay float.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import onnx_ir as ir

from onnxq.model import FLOAT_TYPES
from onnxq.qdq.blocks import UNBOUNDED, Block, Bounds, build_block
from onnxq.qdq.families.nonlinear import SATURATING
from onnxq.qdq.rule import constant_of
from onnxq.qdq.rules import float_reason, rules_by_operator

__all__ = ["EMPTY", "FloatNode", "IntegerNode", "Layout", "Tensor", "lay_out"]


@dataclass(frozen=True, slots=True)
class IntegerNode:
    """A node that runs on codes.

    Attributes:
        node: its name.
        op_type: its operator.
        kernel: operator expected in onnxruntime's optimised graph.
        inputs: activations that it reads as codes.
        outputs: tensors that it writes as codes; none when its kernel's output is float.
        bias: float constant that its kernel adds to its sums; None without.
        absorbs: names of the nodes behind it that its kernel does too.
        reason: why it runs on codes.
    """

    node: str
    op_type: str
    kernel: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    bias: str | None
    absorbs: tuple[str, ...]
    reason: str

    @property
    def adds_bias(self) -> bool:
        """Its kernel adds an int32 bias, or could: every convolution does."""
        return self.bias is not None or self.op_type == "Conv"


@dataclass(frozen=True, slots=True)
class FloatNode:
    """A node that stays float, and why."""

    node: str
    op_type: str
    reason: str


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor that becomes codes.

    Attributes:
        name: of the value.
        root: tensor whose scale it has: itself, or what was moved to make it.
        bounds: values that it never leaves, whatever was observed.
        producer: name of the node that makes it; "" for a graph input or a constant.
        constant: it is an initializer, whose range is known.
        integer: an integer node writes it, so that float readers see it dequantized.
    """

    name: str
    root: str
    bounds: Bounds
    producer: str
    constant: bool
    integer: bool


@dataclass(frozen=True, slots=True)
class Layout:
    """The integer part of a graph, in graph order.

    Attributes:
        integers: nodes that run on codes.
        floats: all other nodes that compute with floats.
        tensors: what becomes codes, by name.
    """

    integers: tuple[IntegerNode, ...]
    floats: tuple[FloatNode, ...]
    tensors: Mapping[str, Tensor]

    @property
    def roots(self) -> tuple[Tensor, ...]:
        """Tensors that need a range of their own from calibration."""
        return tuple(tensor for tensor in self.tensors.values() if tensor.root == tensor.name and not tensor.constant)


_SHAPES = frozenset({"Shape", "Size", "Constant", "ConstantOfShape", "Range", "If", "Loop", "Scan"})

EMPTY = Layout((), (), MappingProxyType({}))
"""No integer node at all."""


def lay_out(
    model: ir.Model,
    barred: Mapping[str, str],
    *,
    everything: bool = False,
    insisted: Collection[str] = (),
) -> Layout:
    """Find the integer part of a normalised graph.

    Args:
        model: normalised, with names on all nodes.
        barred: nodes that must stay float, by name, and why.
        everything: use integer kernels also where they are slower.
        insisted: nodes for which they are used anyway.
    """
    blocks, reasons = _candidates(model.graph, barred, frozenset(insisted), everything=everything)
    _give_up(blocks, reasons)
    integers, tensors = _written(blocks)
    absorbed = {name for integer in integers for name in integer.absorbs}
    chosen = {integer.node for integer in integers}
    floats = [
        FloatNode(node.name or "", node.op_type, _float_reason(node, reasons))
        for node in ir.traversal.RecursiveGraphIterator(model.graph)
        if node.name not in chosen and node.name not in absorbed and _computes_floats(node)
    ]
    return Layout(tuple(integers), tuple(floats), MappingProxyType(tensors))


_Blocks = dict[str, Block]


def _candidates(
    graph: ir.Graph, barred: Mapping[str, str], insisted: frozenset[str], *, everything: bool
) -> tuple[_Blocks, dict[str, str]]:
    """Case 1: blocks by the name of their first node, and reasons of the nodes that are none."""
    rules = rules_by_operator()
    blocks: _Blocks = {}
    reasons: dict[str, str] = {}
    absorbed: set[str] = set()
    for node in graph:
        name = node.name or ""
        if name in absorbed:
            continue
        rule = rules.get(node.op_type) if node.domain == "" else None
        if name in barred:
            reasons[name] = barred[name]
        elif rule is None and node.op_type in SATURATING:
            continue  # unless a block absorbs it; see _float_reason
        elif rule is None:
            reasons[name] = float_reason(node.op_type) if node.domain == "" else f"a {node.domain} operator"
        elif (refusal := rule.refuses(node) or _wrong_type(node)) is not None:
            reasons[name] = refusal
        elif not everything and name not in insisted and (slower := rule.slower(node)) is not None:
            reasons[name] = slower
        else:
            block = build_block(node, rule)
            if any(other.name in barred for other in block.absorbed):
                block = Block(node, rule)
            blocks[name] = block
            absorbed.update(other.name or "" for other in block.absorbed)
    return blocks, reasons


def _wrong_type(node: ir.Node) -> str | None:
    """Integer kernels have float32 around them (integer tensors, as shapes and indices, are not even looked at)."""
    for value in node.outputs:
        if value.dtype is not None and value.dtype != ir.DataType.FLOAT:
            return f"its output is {value.dtype.name}"
    return None


def _give_up(blocks: _Blocks, reasons: dict[str, str]) -> None:
    """Case 2: drop blocks until every one left has what its rule asks for."""
    while True:
        written = {id(value) for block in blocks.values() if _writes_codes(block, blocks) for value in block.outputs}
        lost = {name: why for name, block in blocks.items() if (why := _misses(block, blocks, written)) is not None}
        if not lost:
            return
        for name, why in lost.items():
            reasons[name] = why
            for node in blocks[name].absorbed:
                reasons[node.name or ""] = f"the {blocks[name].node.op_type} in front of it is float"
            del blocks[name]


def _misses(block: Block, blocks: _Blocks, written: set[int]) -> str | None:
    """What a block lacks to run on codes; None when it has all."""
    if block.rule.joins == "anchor":
        return None
    if not any(id(value) in written for value in block.operands):
        return "what it reads is float: quantizing it there would only add time and error"
    if block.rule.joins == "between" and not any(_readers(value, blocks) for value in block.outputs):
        return "what reads its output is float: quantizing it would only add time and error"
    return None


def _readers(value: ir.Value, blocks: _Blocks) -> int:
    """How many integer blocks read a value as codes."""
    return sum(
        usage.node.name in blocks and any(value is operand for operand in blocks[usage.node.name or ""].operands)
        for usage in value.uses()
    )


def _writes_codes(block: Block, blocks: _Blocks) -> bool:
    """Case 3."""
    if not block.rule.float_output:
        return True
    (output,) = block.outputs
    readers = len(list(output.uses()))
    return readers > 0 and not output.is_graph_output() and _readers(output, blocks) == readers


def _written(blocks: _Blocks) -> tuple[list[IntegerNode], dict[str, Tensor]]:
    """Integer nodes and tensors, in graph order."""
    integers: list[IntegerNode] = []
    tensors: dict[str, Tensor] = {}
    for block in blocks.values():
        codes = _writes_codes(block, blocks)
        final = block if codes else block.without_saturation()
        inputs = list(dict.fromkeys(value.name or "" for value in final.operands))
        for value in final.operands:
            tensors.setdefault(value.name or "", _float_tensor(value))
        outputs = [value for value in final.outputs if value.uses() or value.is_graph_output()] if codes else []
        for value in outputs:
            name = value.name or ""
            root = tensors[inputs[0]].root if final.rule.shares else name
            tensors[name] = Tensor(name, root, final.bounds, final.node.name or "", constant=False, integer=True)
        integers.append(
            IntegerNode(
                node=final.node.name or "",
                op_type=final.node.op_type,
                kernel=_kernel(final, codes=codes),
                inputs=tuple(inputs),
                outputs=tuple(value.name or "" for value in outputs),
                bias=_bias_name(final),
                absorbs=tuple(node.name or "" for node in final.absorbed),
                reason=final.rule.reason,
            )
        )
    return integers, tensors


def _float_tensor(value: ir.Value) -> Tensor:
    """A tensor that no integer node writes."""
    producer = value.producer()
    name = value.name or ""
    made_by = producer.name or "" if producer is not None else ""
    return Tensor(name, name, UNBOUNDED, made_by, constant=constant_of(value) is not None, integer=False)


def _kernel(block: Block, *, codes: bool) -> str:
    if block.bias is not None:
        return "QGemm"
    if block.node.op_type == "MatMul":
        return "QLinearMatMul" if codes else "MatMulIntegerToFloat"
    return block.rule.kernel or block.node.op_type


def _bias_name(block: Block) -> str | None:
    """The float constant that the kernel adds: a Conv's third input, or the Add's constant behind a MatMul."""
    if block.bias is not None:
        first, second = block.bias.inputs
        bias = second if first is block.node.outputs[0] else first
    else:
        bias = block.node.inputs[2] if block.node.op_type == "Conv" and len(block.node.inputs) > 2 else None
    return bias.name if bias is not None else None


def _computes_floats(node: ir.Node) -> bool:
    """Shapes, indices and conditions are no business of quantization."""
    known = [value.dtype for value in node.outputs if value.dtype is not None]
    return node.op_type not in _SHAPES and (not known or any(dtype in FLOAT_TYPES for dtype in known))


def _float_reason(node: ir.Node, reasons: Mapping[str, str]) -> str:
    name = node.name or ""
    if name in reasons:
        return reasons[name]
    if node.op_type in SATURATING:
        return "nothing in front of it could absorb it: its input is float, or is read by others too"
    return "inside a branch or a loop: only the main graph is quantized to integer activations"
