"""Kernels: which operator really runs each quantized node, read back from onnxruntime's optimised graph.

Packed nodes are found by the name of their output, and where a product has become several nodes (format dynamic), by
the name of the one that multiplies. Integer nodes keep their own name when they are fused (with
`_token_N` behind it where their layout was changed), while their output's name moves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx

from onnxq import ops
from onnxq.cuda_target import ON_CUDA
from onnxq.qdq.layout import IntegerNode
from onnxq.session import CUDA_PROVIDER, SessionOptions, node_providers, optimised_graph
from onnxq.survey import Site

__all__ = ["FOLDED", "kernels_found"]

# Operators that onnxruntime may put behind a fused node: the node is what stands in front of them.
_LOOK_THROUGH = frozenset({"Cast", "Reshape", "Squeeze", "Unsqueeze", "Transpose"})


_FLOAT_PRODUCTS = {"Gemm": "MatMul", "FusedMatMul": "MatMul", "FusedConv": "Conv"}
"""Float products that onnxruntime makes of an operator and its neighbours, e.g. of a MatMul and its bias."""

_WIDENED = "InsertedPrecisionFreeCast_"
"""What onnxruntime puts before the name of a float16 value that it computes in float32."""

_TOKEN = re.compile(r"_token_\d+$")
_CHANNELS_LAST = "Nhwc"

FOLDED = "folded away"
"""What is found of a node that moves codes and that onnxruntime merged with its neighbours."""


def kernels_found(
    path: Path, sites: Sequence[Site], options: SessionOptions, *, integers: Sequence[IntegerNode] = ()
) -> dict[str, str]:
    """The operator that computes each node's output once onnxruntime has optimised the graph.

    Args:
        path: the quantized model file.
        sites: packed nodes: what to look for, by output name.
        options: with `use_library`, a packed node shows as `onnxq::PackedMatMul`; with `cuda` too, as
            `onnxq::PackedMatMul on CUDA` where the CUDA provider runs it.
        integers: integer nodes: what to look for, by node name.
    Returns:
        Operator by node name; "not found" where the optimised graph has no trace of the output, FOLDED where an
        integer node without a kernel of its own is gone, "OP in float" where it reads dequantized values.
    """
    optimised = list(_all_nodes(optimised_graph(path, options)))
    producers = _producers(optimised)
    written = list(_all_nodes(onnx.load(path, load_external_data=False).graph))
    consumers: dict[str, list[onnx.NodeProto]] = {}
    for node in written:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    found = {site.node: _kernel(site.output, producers, consumers) for site in sites}
    sums = {ops.whole_node(node.name): node.op_type for node in optimised if ops.whole_node(node.name) != node.name}
    found |= {node: sums[node] for node in found if node in sums}
    if options.cuda and options.use_library:
        ran = node_providers(path, options)
        found = {node: name + (ON_CUDA if ran.get(node) == CUDA_PROVIDER else "") for node, name in found.items()}
    by_name = {_TOKEN.sub("", node.name): node for node in optimised}
    return found | {integer.node: _integer_kernel(integer, by_name, producers) for integer in integers}


def _producers(optimised: Sequence[onnx.NodeProto]) -> dict[str, onnx.NodeProto]:
    """Producer by value name; a value that was widened to float32 goes by its own name too."""
    producers = {name: node for node in optimised for name in node.output if name}
    for name, node in list(producers.items()):
        if name.startswith(_WIDENED):
            producers.setdefault(name.removeprefix(_WIDENED), node)
    return producers


def _integer_kernel(
    integer: IntegerNode, by_name: dict[str, onnx.NodeProto], producers: dict[str, onnx.NodeProto]
) -> str:
    node = by_name.get(integer.node)
    if node is None:
        return FOLDED
    source = producers.get(node.input[0]) if node.input else None
    reads_floats = source is not None and source.op_type == "DequantizeLinear"
    if reads_floats and node.op_type == integer.op_type:
        return f"{node.op_type} in float"
    return node.op_type.removeprefix(_CHANNELS_LAST)


def _kernel(output: str, producers: dict[str, onnx.NodeProto], consumers: dict[str, list[onnx.NodeProto]]) -> str:
    value = output
    for _ in range(3):  # the value itself, or a fused Add (bias) or Cast behind it took over the name
        node, seen = producers.get(value), set[str]()
        while node is not None and node.op_type in _LOOK_THROUGH and node.input[0] in producers:
            if node.input[0] in seen:  # one name in two scopes: casts that onnxruntime puts into both branches
                break
            seen.add(node.input[0])
            node = producers[node.input[0]]
        if node is not None:
            if node.domain == ops.DOMAIN:
                return f"{node.domain}::{node.op_type}"
            return _FLOAT_PRODUCTS.get(node.op_type, node.op_type)
        following = consumers.get(value, [])
        if len(following) != 1 or not following[0].output:
            break
        value = following[0].output[0]
    return "not found"


def _all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _all_nodes(attribute.g)
