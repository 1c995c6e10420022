"""Survey: every weight of a normalised graph is either a site that can be quantized, or skipped with a reason."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from onnxq.model import FLOAT_TYPES, Model

__all__ = ["MIN_ELEMENTS", "Site", "SiteKind", "Skip", "Survey", "find_nodes", "survey_model"]

SiteKind = Literal["matmul", "matmul_transposed", "gather", "conv"]
"""How a node reads its weight: A @ W, A @ W^T (W shared with a Gather), rows of W, or as filters."""

MIN_ELEMENTS = 1024
"""Smaller matrices stay float: a packed kernel costs more than the few hundred bytes they would save."""

_ZEROS = "a float16 matmul in a branch or loop body: onnxruntime 1.31 on the CPU would compute zeros"

_RECURRENT = frozenset({"LSTM", "GRU", "RNN"})


@dataclass(frozen=True, slots=True)
class Site:
    """One use of one weight that can be quantized.

    Attributes:
        node: name of the node that reads the weight, unique in the model.
        op_type: its operator.
        kind: how it reads the weight.
        weight: name of the initializer, in the scope `scope`.
        scope: "" for the main graph, else the path of the subgraph that holds the weight.
        k: length of the reduction axis (of a table: of one row).
        n: output channels (of a table: rows).
        dtype: float type of the weight, by name (FLOAT, FLOAT16, BFLOAT16).
        output: name of the node's output value.
        shape: the weight's own shape.
    """

    node: str
    op_type: str
    kind: SiteKind
    weight: str
    scope: str
    k: int
    n: int
    dtype: str
    output: str
    shape: tuple[int, ...] = ()

    @property
    def elements(self) -> int:
        """Number of weights."""
        return self.k * self.n

    @property
    def float_bytes(self) -> int:
        """Bytes of the weight before quantization."""
        return int(self.elements * ir.DataType[self.dtype].itemsize)

    @property
    def storage(self) -> tuple[str, str, str]:
        """Sites with equal storage read the same weight and can share its packed bytes: blocks run along one axis."""
        layout = "rows" if self.kind in ("gather", "matmul_transposed") else self.kind
        return self.scope, self.weight, layout


@dataclass(frozen=True, slots=True)
class Skip:
    """A weight that stays as it is, and why. `scope` is that of the weight, as in Site."""

    node: str
    op_type: str
    weight: str
    elements: int
    bytes: int
    reason: str
    scope: str = ""


@dataclass(frozen=True, slots=True)
class Survey:
    """Everything that could be quantized, and everything that could not, in graph order."""

    sites: tuple[Site, ...]
    skips: tuple[Skip, ...]


def survey_model(model: Model) -> Survey:
    """Classify every use of every float weight of a normalised model.

    Returns:
        Survey: one Site per quantizable use; one Skip per other use of a weight of at least 1024 elements and two dims.
        Filters of convolutions are sites whatever their size: what counts is the image that they run over.
    """
    sites: list[Site] = []
    skips: list[Skip] = []
    scopes = _scopes(model.ir)
    for node in ir.traversal.RecursiveGraphIterator(model.ir.graph):
        for index, value in enumerate(node.inputs):
            tensor = value.const_value if value is not None else None
            if value is None or tensor is None or tensor.dtype not in (*FLOAT_TYPES, ir.DataType.DOUBLE):
                continue
            if len(tensor.shape) < 2 or (tensor.size < MIN_ELEMENTS and node.op_type != "Conv"):
                continue
            for found in _classify(node, index, value):
                if isinstance(found, str):
                    skips.append(_skip(node, value, found, scopes))
                elif _computes_zeros(found, tensor.dtype, scopes):
                    skips.append(_skip(found[1], value, _ZEROS, scopes))
                else:
                    sites.append(_site(found, value, scopes))
    return Survey(tuple(sites), tuple(skips))


def _skip(node: ir.Node, value: ir.Value, reason: str, scopes: dict[int, str]) -> Skip:
    tensor = value.const_value
    assert tensor is not None
    return Skip(
        node=node.name or "",
        op_type=node.op_type,
        weight=value.name or "",
        elements=tensor.size,
        bytes=tensor.nbytes,
        reason=reason,
        scope=scopes[id(value.graph)],
    )


def _site(found: _Found, value: ir.Value, scopes: dict[int, str]) -> Site:
    kind, reader, k, n = found
    tensor = value.const_value
    assert tensor is not None
    return Site(
        node=reader.name or "",
        op_type=reader.op_type,
        kind=kind,
        weight=value.name or "",
        scope=scopes[id(value.graph)],
        k=k,
        n=n,
        dtype=tensor.dtype.name,
        output=reader.outputs[0].name or "",
        shape=tuple(int(size) for size in tensor.shape.numpy()),
    )


def find_nodes(model: ir.Model) -> dict[str, ir.Node]:
    """Every node of a normalised model, in any scope, by its name."""
    return {node.name or "": node for node in ir.traversal.RecursiveGraphIterator(model.graph)}


_Found = tuple[SiteKind, ir.Node, int, int]


def _computes_zeros(found: _Found, dtype: ir.DataType, scopes: dict[int, str]) -> bool:
    """onnxruntime 1.31 without float16 kernels casts the scales of a MatMulNBits to float32, folds that cast in the
    main graph only, and its kernel takes scales that are no constant for zeros: no error, no warning.
    """
    kind, reader, _, _ = found
    inside = scopes[id(reader.graph)] != ""
    return inside and dtype == ir.DataType.FLOAT16 and kind in ("matmul", "matmul_transposed")


def _classify(node: ir.Node, index: int, value: ir.Value) -> list[_Found | str]:
    """The sites of this use (a Transpose has one per reader), or the one reason why it is none."""
    assert value.const_value is not None
    shape = tuple(int(size) for size in value.const_value.shape.numpy())
    if value.is_graph_input():
        return ["a graph input with a default value: callers may replace it"]
    if value.const_value.dtype == ir.DataType.DOUBLE:
        return ["a float64 weight: onnxruntime has packed kernels for float32 and float16 models only"]
    if node.domain != "":
        return [f"operator {node.domain}::{node.op_type} has no quantized form here"]
    match node.op_type:
        case "MatMul":
            if index == 0:
                return ["the constant is the left operand; packed kernels take it on the right"]
            if len(shape) != 2:
                return [f"a batched weight of rank {len(shape)}; packed kernels take one [K, N] matrix"]
            return [("matmul", node, shape[0], shape[1])]
        case "Transpose":
            return _classify_transposed(node, shape)
        case "Gather":
            if index != 0 or len(shape) != 2 or node.attributes.get_int("axis", 0) != 0:
                return [
                    f"Gather of rank {len(shape)} along axis {node.attributes.get_int('axis', 0)}; "
                    "packed tables are [V, K], read by rows"
                ]
            return [("gather", node, shape[1], shape[0])]
        case "Conv":
            if index != 1:
                return ["a constant image, not a filter"]
            k = 1
            for size in shape[1:]:
                k *= size
            return [("conv", node, k, shape[0])]
    return [_reason(node)]


def _classify_transposed(node: ir.Node, shape: tuple[int, ...]) -> list[_Found | str]:
    usages = list(node.outputs[0].uses())
    readers = [usage.node for usage in usages if usage.node.op_type == "MatMul" and usage.idx == 1]
    perm = list(node.attributes.get_ints("perm", (1, 0)))
    if len(shape) != 2 or perm != [1, 0] or not readers or len(readers) != len(usages):
        return ["a shared weight read through a Transpose by something else than a MatMul"]
    return [("matmul_transposed", reader, shape[1], shape[0]) for reader in readers]


def _reason(node: ir.Node) -> str:
    if node.op_type in _RECURRENT:
        return "recurrent weights: onnxruntime has no packed kernel for them"
    if node.op_type == "ConvTranspose":
        return "ConvTranspose: onnxruntime has no integer or packed kernel for it"
    return f"{node.op_type} does not multiply by this tensor as a weight matrix"


def _scopes(model: ir.Model) -> dict[int, str]:
    """Graph object -> path such as `if_node.then_branch`, nested paths joined by a slash."""
    return dict(_walk(model.graph, ""))


def _walk(graph: ir.Graph, path: str) -> Iterator[tuple[int, str]]:
    yield id(graph), path
    for node in graph:
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                yield from _walk(attribute.as_graph(), f"{path}/{node.name}.{attribute.name}".lstrip("/"))
