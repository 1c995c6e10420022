"""Small ONNX models from plain values, and the three ways to run one: onnxruntime, the same with onnxq's library,
and the reference evaluator."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import onnxq
from onnxq.model import Model

ONNX_BITS = (2, 4, 8)
"""Widths that ONNX has an integer type for; the others are stored in planes and tested where those are."""

Shape = Sequence[int | str | None]

ELEMENT = {
    np.dtype(np.float32): TensorProto.FLOAT,
    np.dtype(np.float64): TensorProto.DOUBLE,
    np.dtype(np.float16): TensorProto.FLOAT16,
    np.dtype(ml_dtypes.bfloat16): TensorProto.BFLOAT16,
    np.dtype(np.int64): TensorProto.INT64,
    np.dtype(np.int32): TensorProto.INT32,
    np.dtype(np.bool_): TensorProto.BOOL,
}

node = helper.make_node


def value(name: str, shape: Shape | None, dtype: Any = np.float32) -> onnx.ValueInfoProto:
    """A graph input or output."""
    return helper.make_tensor_value_info(name, ELEMENT[np.dtype(dtype)], shape)


def tensor(name: str, array: np.ndarray) -> onnx.TensorProto:
    """An initializer."""
    return numpy_helper.from_array(np.ascontiguousarray(array), name)


def graph(
    nodes: Iterable[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto] = (),
    outputs: Sequence[onnx.ValueInfoProto] = (),
    weights: Mapping[str, np.ndarray] | None = None,
    *,
    name: str = "graph",
) -> onnx.GraphProto:
    """A graph, or the body of an If, Loop or Scan."""
    initializers = [tensor(key, array) for key, array in (weights or {}).items()]
    return helper.make_graph(list(nodes), name, list(inputs), list(outputs), initializers)


def model(
    main: onnx.GraphProto,
    *,
    opset: int = 21,
    ir_version: int | None = None,
    functions: Sequence[onnx.FunctionProto] = (),
    domains: Sequence[str] = (),
) -> onnx.ModelProto:
    """A checked model; `domains` are further operator domains that it uses."""
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    lowest = helper.find_min_ir_version_for(imports, ignore_unknown=True)
    built = helper.make_model(main, opset_imports=imports, ir_version=ir_version or lowest, functions=functions)
    onnx.checker.check_model(built)
    return built


def in_memory(proto: onnx.ModelProto) -> Model:
    """The Model that `load` would give for a saved file, without a file."""
    return Model(Path("in_memory.onnx"), ir.from_proto(proto), fingerprint="")


def run(
    proto: onnx.ModelProto | ir.Model | Path,
    feeds: Mapping[str, np.ndarray],
    *,
    library: bool = False,
    optimise: bool = True,
    config: Mapping[str, str] | None = None,
) -> list[np.ndarray]:
    """All outputs from onnxruntime, stock unless `library`; `config` are session config entries."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    for key, text in (config or {}).items():
        options.add_session_config_entry(key, text)
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if library:
        onnxq.register_ops(options)
    if isinstance(proto, ir.Model):
        proto = ir.to_proto(proto)
    source = str(proto) if isinstance(proto, Path) else proto.SerializeToString()
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"]).run(None, dict(feeds))


def run_reference(proto: onnx.ModelProto | ir.Model | Path, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """All outputs from onnx's reference evaluator."""
    if isinstance(proto, ir.Model):
        proto = ir.to_proto(proto)
    return ReferenceEvaluator(onnx.load(proto) if isinstance(proto, Path) else proto).run(None, dict(feeds))


def relative_error(actual: np.ndarray, expected: np.ndarray) -> float:
    """L2 norm of the difference over the L2 norm of what was expected, in float64."""
    actual, expected = actual.astype(np.float64), expected.astype(np.float64)
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    return float(np.linalg.norm(actual - expected) / max(np.linalg.norm(expected), 1e-30))


def op_types(graph: onnx.GraphProto | ir.Model) -> list[str]:
    """Operators of a graph and its subgraphs, in order."""
    if isinstance(graph, ir.Model):
        return [item.op_type for item in ir.traversal.RecursiveGraphIterator(graph.graph)]
    found = []
    for item in graph.node:
        found.append(item.op_type)
        for attribute in item.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                found += op_types(attribute.g)
    return found
