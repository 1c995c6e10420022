"""What the rules share: reading constant floats, deriving one weight lazily from another, editing the graph.

A derived weight (a transpose, a scaled copy) stays lazy: it is computed when somebody reads it and is not
kept, so that normalising a model costs no memory.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxq.model import FLOAT_TYPES, all_graphs

__all__ = [
    "Array",
    "add_initializer",
    "constant",
    "derive",
    "is_float_constant",
    "reserve_names",
    "sole_consumer",
    "unique_name",
]

Array = npt.NDArray[np.floating]

_DERIVED = "onnxq.derived"
"""Key of a value's metadata under which its derivations are remembered, by suffix."""


_TAKEN = "onnxq.taken"
"""Key of a graph's metadata under which the names of the whole model are remembered."""


def constant(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor behind a value that can never change at run time; None for anything else.

    A graph input with a default value can be overridden, so it is not constant.
    """
    if value is None or value.const_value is None or value.is_graph_input() or not value.is_initializer():
        return None
    return value.const_value


def is_float_constant(value: ir.Value | None) -> bool:
    """Is this a constant of a type that can be quantized?"""
    tensor = constant(value)
    return tensor is not None and tensor.dtype in FLOAT_TYPES


def derive(
    value: ir.Value,
    suffix: str,
    function: Callable[[Array], Array],
    shape: tuple[int, ...] | None = None,
    *,
    dtype: ir.DataType | None = None,
) -> ir.Value:
    """A new initializer computed lazily from a constant, in the constant's own graph.

    Args:
        value: the constant to start from.
        suffix: says which derivation this is, and is added to the name. The same derivation of the same constant
            is made once: a weight shared by several nodes stays shared.
        function: float32 array -> float32 array; its result is stored in the constant's own type.
        shape: of the result; the constant's own when None.
        dtype: of the result; the constant's own when None.
    """
    source, graph = constant(value), value.graph
    assert source is not None
    assert graph is not None
    known: dict[str, ir.Value] = value.meta.setdefault(_DERIVED, {})
    if suffix in known and known[suffix].graph is graph:
        return known[suffix]
    name = unique_name(graph, f"{value.name}{suffix}")
    target = shape if shape is not None else tuple(source.shape.numpy())
    to = dtype if dtype is not None else source.dtype

    def compute() -> ir.TensorProtocol:
        result = function(source.numpy().astype(np.float32))
        return ir.Tensor(np.ascontiguousarray(result).astype(to.numpy()), dtype=to, name=name)

    tensor = ir.LazyTensor(compute, dtype=to, shape=ir.Shape(target), name=name)
    known[suffix] = add_initializer(graph, name, tensor)
    return known[suffix]


def add_initializer(graph: ir.Graph, name: str, tensor: ir.TensorProtocol) -> ir.Value:
    """Register a tensor as an initializer and return its value."""
    value = ir.Value(
        name=name, shape=ir.Shape(tensor.shape.numpy()), type=ir.TensorType(tensor.dtype), const_value=tensor
    )
    graph.register_initializer(value)
    return value


def sole_consumer(value: ir.Value) -> ir.Node | None:
    """The only node that reads a value; None if there are several, none, or it is a graph output."""
    consumers = [usage.node for usage in value.uses()]
    return consumers[0] if len(consumers) == 1 and not value.is_graph_output() else None


def reserve_names(model: ir.Model) -> None:
    """Let `unique_name` know every value of the model, in all scopes: an inner name must not hide an outer one."""
    graphs = list(all_graphs(model))
    taken = _names(*graphs)
    for graph in graphs:
        graph.meta[_TAKEN] = taken


def _names(*graphs: ir.Graph) -> set[str | None]:
    taken = {output.name for graph in graphs for node in graph for output in node.outputs}
    for graph in graphs:
        taken |= set(graph.initializers) | {value.name for value in graph.inputs}
    return taken


def unique_name(graph: ir.Graph, wanted: str) -> str:
    """`wanted`, or `wanted_2`, `wanted_3`...: a value name that no scope of the model uses yet (see reserve_names)."""
    taken: set[str | None] = graph.meta.get(_TAKEN, set())
    if not taken:  # nobody has looked at the whole model: what this scope and those inside it use
        taken = _names(graph, *graph.subgraphs())
    taken |= set(graph.initializers)
    name, count = wanted, 1
    while name in taken:
        count += 1
        name = f"{wanted}_{count}"
    taken.add(name)
    return name
