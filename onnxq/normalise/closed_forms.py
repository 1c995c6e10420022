"""Activation functions that exporters spell out in elementwise operators become the one operator they are.

| operator | f(x) | a spelling |
|---|---|---|
| Gelu | x (1 + erf(x / sqrt 2)) / 2 | Div, Erf, Add, Mul, Mul |
| Gelu, tanh | x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2 | Mul, Mul, Mul, Add, Mul, Tanh, Add, Mul, Mul |
| HardSwish | x min(max(x + 3, 0), 6) / 6 | Add, Clip, Mul, Div |

Spellings differ without end, so none is matched by its shape: starting at the Erf, Tanh or Clip, the formula behind
it is evaluated at a few points, as a function of each value that it starts from, and compared with f. Nothing
outside may read a value in between.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxq.model import FLOAT_TYPES
from onnxq.normalise.weights import constant

__all__ = ["fold_closed_forms"]

_Points = npt.NDArray[np.float64]
_PROBES: _Points = np.array([-6.5, -3.1, -2.0, -0.7, -0.01, 0.0, 0.3, 1.1, 2.9, 3.3, 7.0])
_TOLERANCE = 1e-4
"""Exporters round their constants (1.4142135, 0.7978846); two different functions are 1e-2 apart at some probe."""

_LONGEST = 6
"""Operators between the Erf, Tanh or Clip and the end of the longest known spelling."""

_ERF = np.vectorize(math.erf, otypes=[np.float64])


def _gelu(x: _Points) -> _Points:
    return np.asarray(x * (1 + _ERF(x / np.sqrt(2))) / 2)


def _gelu_tanh(x: _Points) -> _Points:
    return np.asarray(x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2)


def _hard_swish(x: _Points) -> _Points:
    return np.asarray(x * np.clip(x + 3, 0, 6) / 6)


_FORMS: dict[str, tuple[str, Callable[[_Points], _Points], dict[str, str]]] = {
    "Erf": ("Gelu", _gelu, {}),
    "Tanh": ("Gelu", _gelu_tanh, {"approximate": "tanh"}),
    "Clip": ("HardSwish", _hard_swish, {}),
}
"""What a formula around each operator may be."""

_ELEMENTWISE: dict[str, Callable[..., _Points]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Pow": np.power,
    "Erf": _ERF,
    "Tanh": np.tanh,
}


def _clip(x: _Points, low: _Points | float = -np.inf, high: _Points | float = np.inf) -> _Points:
    return np.asarray(np.minimum(np.maximum(x, low), high))


def fold_closed_forms(model: ir.Model) -> int:
    """Fold every spelled-out function in place; returns how many. Needs opset 20 (Gelu)."""
    if model.graph.opset_imports.get("", 0) < 20:
        return 0
    nodes = [node for node in ir.traversal.RecursiveGraphIterator(model.graph) if node.op_type in _FORMS]
    return sum(_fold(node) for node in nodes if node.domain == "")


def _fold(kernel: ir.Node) -> bool:
    op_type, function, attributes = _FORMS[kernel.op_type]
    last: ir.Node | None = kernel
    for _ in range(_LONGEST):
        last = _only_reader(last)
        if last is None:
            return False
        for x, formula in _starts(last, kernel):
            if _equal(last, x, function) and _closed(formula, last):
                _replace(last, formula, x, op_type, attributes)
                return True
    return False


def _only_reader(node: ir.Node | None) -> ir.Node | None:
    """The one node behind another in the same graph, if it is elementwise."""
    if node is None or node.outputs[0].is_graph_output():
        return None
    readers = {id(usage.node): usage.node for usage in node.outputs[0].uses()}
    if len(readers) != 1:
        return None
    (reader,) = readers.values()
    return reader if reader.op_type in _ELEMENTWISE and reader.graph is node.graph else None


def _starts(last: ir.Node, kernel: ir.Node) -> list[tuple[ir.Value, list[ir.Node]]]:
    """Values that the formula ending at `last` may be a function of, each with the nodes in between."""
    found = []
    for x in _values_behind(last):
        formula = _between(last, x)
        if formula is not None and kernel in formula and len(list(x.uses())) > 1:
            found.append((x, formula))
    return found


def _values_behind(last: ir.Node) -> list[ir.Value]:
    values: dict[int, ir.Value] = {}
    stack = [(last, 0)]
    while stack:
        node, depth = stack.pop()
        for value in node.inputs:
            if value is None or constant(value) is not None or id(value) in values:
                continue
            values[id(value)] = value
            producer = value.producer()
            if producer is not None and _is_step(producer) and depth < 2 * _LONGEST:
                stack.append((producer, depth + 1))
    return list(values.values())


def _is_step(node: ir.Node) -> bool:
    return node.domain == "" and (node.op_type in _ELEMENTWISE or node.op_type == "Clip")


def _between(last: ir.Node, x: ir.Value) -> list[ir.Node] | None:
    """Nodes that compute `last` from `x` and scalars alone; None if something else takes part."""
    nodes: dict[int, ir.Node] = {}
    rank = len(x.shape) if x.shape is not None else 0
    stack = [last]
    while stack:
        node = stack.pop()
        if id(node) in nodes:
            continue
        if not _is_step(node) or node.graph is not last.graph or len(nodes) > 3 * _LONGEST:
            return None
        nodes[id(node)] = node
        for value in node.inputs:
            if value is None or value is x or _is_scalar(value, rank):
                continue
            producer = value.producer()
            if producer is None:
                return None
            stack.append(producer)
    return list(nodes.values())


def _is_scalar(value: ir.Value, rank: int) -> bool:
    """A constant of one element that does not raise the rank of what it is combined with."""
    tensor = constant(value)
    return tensor is not None and tensor.dtype in FLOAT_TYPES and tensor.size == 1 and len(tensor.shape) <= rank


def _scalar(value: ir.Value) -> float | None:
    tensor = constant(value)
    return float(tensor.numpy().reshape(-1)[0]) if tensor is not None and tensor.size == 1 else None


def _equal(last: ir.Node, x: ir.Value, function: Callable[[_Points], _Points]) -> bool:
    with np.errstate(all="ignore"):
        got = _evaluate(last, x)
    wanted = function(_PROBES)
    return bool(np.all(np.abs(got - wanted) <= _TOLERANCE * (1 + np.abs(wanted))))


def _evaluate(node: ir.Node, x: ir.Value) -> _Points:
    operands: list[_Points] = []
    for value in node.inputs:
        producer = None if value is None else value.producer()
        if value is None:  # a Clip without a bound
            operands.append(np.full_like(_PROBES, np.inf if len(operands) == 2 else -np.inf))
        elif value is x:
            operands.append(_PROBES)
        elif (number := _scalar(value)) is not None:
            operands.append(np.full_like(_PROBES, number))
        else:
            assert producer is not None
            operands.append(_evaluate(producer, x))
    return np.asarray((_clip if node.op_type == "Clip" else _ELEMENTWISE[node.op_type])(*operands))


def _closed(formula: list[ir.Node], last: ir.Node) -> bool:
    """Nobody outside the formula reads what is computed inside it."""
    inside = {id(node) for node in formula}
    return all(
        not node.outputs[0].is_graph_output() and all(id(usage.node) in inside for usage in node.outputs[0].uses())
        for node in formula
        if node is not last
    )


def _replace(last: ir.Node, formula: list[ir.Node], x: ir.Value, op_type: str, attributes: dict[str, str]) -> None:
    graph, output = last.graph, last.outputs[0]
    assert isinstance(graph, ir.Graph)
    node = ir.node(op_type, [x], attributes=attributes or None, name=last.name)
    graph.insert_before(last, node)
    new = node.outputs[0]
    output.replace_all_uses_with(new, replace_graph_outputs=True)
    name, output.name = output.name, None
    new.name, new.type, new.shape = name, output.type, output.shape
    graph.remove(formula, safe=True)
