"""Checks of a parsed model before anybody builds a graph from it; what the file says is only read here.

1. No sparse tensors: neither onnx-ir nor the rewriting knows them.
2. Every operator of the default domain has the inputs and outputs that its schema demands.
3. Every name that is read, or is an output, is defined in its scope or one around it.
4. Nodes come after those that they read. Exporters may break this and onnxruntime does not mind, so they are put in
   order; a circle is an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import onnx

from onnxq.errors import ModelError

__all__ = ["check_and_sort"]

_AGAIN = "export the model again"


def check_and_sort(path: Path, proto: onnx.ModelProto) -> None:
    """Check cases 1 to 4 and put the nodes of every graph in order, in place.

    Args:
        path: for messages.
        proto: as parsed.
    Raises:
        ModelError: one of the cases, naming the node.
    """
    _check_nodes(path, list(_nodes(proto.graph)), _version(proto.opset_import))
    for function in proto.functions:
        _check_nodes(path, list(_nodes(function)), _version(function.opset_import))
    for graph in (proto.graph, *(body for node in _nodes(proto.graph) for body in _bodies(node))):
        if graph.sparse_initializer:  # 1
            raise _sparse(path, f"initializer '{graph.sparse_initializer[0].values.name}'")
    _check_scope(path, proto.graph, frozenset())


def _nodes(holder: onnx.GraphProto | onnx.FunctionProto) -> Iterator[onnx.NodeProto]:
    """Nodes of a graph or function and of everything inside them."""
    for node in holder.node:
        yield node
        for body in _bodies(node):
            yield from _nodes(body)


def _bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _version(imports: Sequence[onnx.OperatorSetIdProto]) -> int:
    return max((item.version for item in imports if item.domain in ("", "ai.onnx")), default=0)


def _check_nodes(path: Path, nodes: Sequence[onnx.NodeProto], version: int) -> None:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:  # 1
                raise _sparse(path, f"attribute '{attribute.name}' of {_label(node)}")
        if node.domain in ("", "ai.onnx"):
            _check_arity(path, node, version)  # 2


def _check_arity(path: Path, node: onnx.NodeProto, version: int) -> None:
    schema = _schema(node.op_type, version)
    if schema is None:  # onnxruntime's own error names the operator and the opset
        return
    for what, given, least, names in (
        ("input", node.input, schema.min_input, [item.name for item in schema.inputs]),
        ("output", node.output, schema.min_output, [item.name for item in schema.outputs]),
    ):
        if len(given) < least:
            missing = names[len(given)] if len(given) < len(names) else names[-1]
            raise ModelError(
                f"{path}: {_label(node)} has {len(given)} {what}{'' if len(given) == 1 else 's'}, expected at least "
                f"{least} ('{missing}' is missing); {_AGAIN}"
            )


@cache
def _schema(op_type: str, version: int) -> onnx.defs.OpSchema | None:
    try:
        return onnx.defs.get_schema(op_type, version, "")
    except onnx.defs.SchemaError:
        return None


def _check_scope(path: Path, graph: onnx.GraphProto, outer: frozenset[str]) -> None:
    """Cases 3 and 4; `outer` are the names of the scopes around this graph."""
    known = outer | _defined(graph)
    for node in graph.node:
        for name in node.input:
            if name and name not in known:
                raise ModelError(f"{path}: {_label(node)} reads '{name}', which nothing produces; {_AGAIN}")
        for body in _bodies(node):
            _check_scope(path, body, known)
    for output in graph.output:
        if output.name not in known:
            raise ModelError(f"{path}: nothing produces the output '{output.name}'; {_AGAIN}")
    _sort(path, graph)


def _defined(graph: onnx.GraphProto) -> frozenset[str]:
    names = {item.name for item in (*graph.input, *graph.initializer)}
    return frozenset(names | {name for node in graph.node for name in node.output if name})


def _sort(path: Path, graph: onnx.GraphProto) -> None:
    producers = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    before: Mapping[int, list[int]] = {
        index: sorted({producers[name] for name in _reads(node) if name in producers})
        for index, node in enumerate(graph.node)
    }
    if all(earlier < index for index, needed in before.items() for earlier in needed):
        return
    try:
        order = list(TopologicalSorter(before).static_order())
    except CycleError as error:
        circle = " -> ".join(_label(graph.node[index]) for index in error.args[1][:4])
        raise ModelError(f"{path}: nodes wait for each other in a circle ({circle}); {_AGAIN}") from None
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend(nodes[index] for index in order)


def _reads(node: onnx.NodeProto) -> set[str]:
    """Names that a node needs from its own graph or further out, those of its bodies included."""
    names = set(node.input)
    for body in _bodies(node):
        inner = {output.name for output in body.output}.union(*(_reads(item) for item in body.node))
        names |= inner - _defined(body)
    return names


def _label(node: onnx.NodeProto) -> str:
    return f"{node.op_type} '{node.name or next(iter(node.output), '')}'"


def _sparse(path: Path, where: str) -> ModelError:
    return ModelError(f"{path}: {where} is a sparse tensor, which onnxq cannot read; export the model with dense ones")
