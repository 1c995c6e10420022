"""The one property of every rule: the normalised model computes what the original computes."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from graphs import in_memory, relative_error, run

from onnxq.normalise import normalise

TOLERANCE = {np.dtype(np.float32): 1e-5, np.dtype(np.float16): 4 * 2.0**-11}
"""Relative L2 error: what the issue asks of float32; of float16 models a few of their own roundings."""

_ONNX_TYPES = {1: np.float32, 10: np.float16, 7: np.int64, 9: np.bool_, 6: np.int32}


def random_feeds(proto: onnx.ModelProto, *, seed: int = 0, batch: int = 3) -> dict[str, np.ndarray]:
    """An input for each graph input without a default; symbolic dims become `batch`."""
    rng = np.random.default_rng(seed)
    feeds = {}
    defaults = {item.name for item in proto.graph.initializer}
    for item in proto.graph.input:
        if item.name in defaults:
            continue
        kind = item.type.tensor_type
        shape = [dim.dim_value or batch for dim in kind.shape.dim]
        dtype = _ONNX_TYPES[kind.elem_type]
        if dtype == np.bool_:
            feeds[item.name] = rng.integers(0, 2, shape).astype(bool)
        elif np.issubdtype(dtype, np.integer):
            feeds[item.name] = rng.integers(0, 2, shape).astype(dtype)
        else:
            feeds[item.name] = rng.standard_normal(shape).astype(dtype)
    return feeds


def normalised_graph(proto: onnx.ModelProto, *, opset: int = 21) -> ir.Model:
    """The normalised graph, checked by onnx, with every node named once."""
    result = normalise(in_memory(proto), opset=opset).ir
    onnx.checker.check_model(ir.to_proto(result), full_check=True)
    names = [item.name for item in ir.traversal.RecursiveGraphIterator(result.graph)]
    assert all(names)
    assert len(set(names)) == len(names)
    return result


def assert_same(proto: onnx.ModelProto, *, opset: int = 21, seeds: int = 2, **feeds: np.ndarray) -> ir.Model:
    """Normalise and compare all outputs on random feeds (or on `feeds` for the inputs named); returns the result."""
    result = normalised_graph(proto, opset=opset)
    for seed in range(seeds):
        batch = random_feeds(proto, seed=seed) | feeds
        for expected, got in zip(run(proto, batch), run(result, batch), strict=True):
            assert got.dtype == expected.dtype
            assert np.linalg.norm(expected.astype(np.float64)) > 0, "an output of zeros would agree with anything"
            assert relative_error(got, expected) <= TOLERANCE.get(expected.dtype, 0)
    return result
