"""Kernels: which operator really runs each quantized node, read back from onnxruntime's optimised graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx

from onnxq import ops
from onnxq.session import SessionOptions, optimised_graph
from onnxq.survey import Site

__all__ = ["kernels_found"]

# Operators that onnxruntime may put behind a fused node: the node is what stands in front of them.
_LOOK_THROUGH = frozenset({"Cast", "Reshape", "Squeeze", "Unsqueeze", "Transpose"})


def kernels_found(path: Path, sites: Sequence[Site], options: SessionOptions) -> dict[str, str]:
    """The operator that computes each site's output once onnxruntime has optimised the graph.

    Args:
        path: the quantized model file.
        sites: what to look for, by output name.
        options: with `use_library`, a packed node shows as `onnxq::PackedMatMul`.
    Returns:
        Operator by node name; "not found" where the optimised graph has no trace of the output.
    """
    optimised = list(_all_nodes(optimised_graph(path, options)))
    producers = {name: node for node in optimised for name in node.output if name}
    written = list(_all_nodes(onnx.load(path, load_external_data=False).graph))
    consumers: dict[str, list[onnx.NodeProto]] = {}
    for node in written:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    return {site.node: _kernel(site.output, producers, consumers) for site in sites}


def _kernel(output: str, producers: dict[str, onnx.NodeProto], consumers: dict[str, list[onnx.NodeProto]]) -> str:
    value = output
    for _ in range(3):  # the value itself, or a fused Add (bias) or Cast behind it took over the name
        node = producers.get(value)
        while node is not None and node.op_type in _LOOK_THROUGH and node.input[0] in producers:
            node = producers[node.input[0]]
        if node is not None:
            return f"{node.domain}::{node.op_type}" if node.domain == ops.DOMAIN else node.op_type
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
