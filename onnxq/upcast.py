"""A float32 copy of a bfloat16 model, so that it can be run where onnxruntime has no bfloat16 kernels.

onnxruntime's CPU provider cannot load a bfloat16 MatMul or Add at all. Verification then compares float32 copies of
both models: bfloat16 weights are exact in float32, so the quantization error is measured truly, and only the
rounding of bfloat16 activations is missing. The output file itself is not touched.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx_ir as ir

from onnxq.model import all_graphs, all_initializers, follow_links

__all__ = ["float32_copy", "needs_upcast", "runnable_pair"]

_TYPE_ATTRIBUTES = ("to", "dtype", "output_dtype", "stash_type")
"""Attributes of ONNX operators that name an element type."""


def needs_upcast(path: Path) -> bool:
    """Does the model compute in bfloat16?"""
    model = ir.load(path)
    nodes = ir.traversal.RecursiveGraphIterator(model.graph)
    return any(value.dtype == ir.DataType.BFLOAT16 for value in _values(model)) or any(
        node.attributes.get_int(name, 0) == int(ir.DataType.BFLOAT16) for node in nodes for name in _TYPE_ATTRIBUTES
    )


def float32_copy(path: Path, folder: Path) -> Path:
    """Write a copy of the model with every bfloat16 made float32.

    Args:
        path: the model.
        folder: an existing folder for the copy and its external data.
    """
    model = ir.load(path)
    follow_links(path, model)
    for value in all_initializers(model):
        tensor = value.const_value
        assert tensor is not None
        if tensor.dtype == ir.DataType.BFLOAT16:
            value.const_value = _widened(tensor, value.name or "")
    for value in _values(model):
        if value.dtype == ir.DataType.BFLOAT16:
            value.dtype = ir.DataType.FLOAT
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        for name in _TYPE_ATTRIBUTES:
            if node.attributes.get_int(name, 0) == int(ir.DataType.BFLOAT16):
                node.attributes[name] = ir.AttrInt64(name, int(ir.DataType.FLOAT))
        constant = node.attributes.get("value")
        if constant is not None and constant.type == ir.AttributeType.TENSOR:
            tensor = constant.as_tensor()
            if tensor.dtype == ir.DataType.BFLOAT16:
                node.attributes["value"] = ir.AttrTensor("value", _widened(tensor, tensor.name or ""))
    target = folder / path.name
    ir.save(model, target, external_data=f"{path.name}.data")
    return target


@contextmanager
def runnable_pair(reference: Path, quantized: Path) -> Iterator[tuple[Path, Path, str]]:
    """Both models in a form that this machine can run, and a note if that is not the files themselves."""
    if not needs_upcast(reference):
        yield reference, quantized, ""
        return
    with tempfile.TemporaryDirectory(prefix="onnxq-") as folder:
        copies = []
        for index, path in enumerate((reference, quantized)):
            (Path(folder) / str(index)).mkdir()
            copies.append(float32_copy(path, Path(folder) / str(index)))
        yield copies[0], copies[1], ", on float32 copies (onnxruntime's CPU has no bfloat16)"


def _widened(tensor: ir.TensorProtocol, name: str) -> ir.TensorProtocol:
    def compute() -> ir.TensorProtocol:
        return ir.Tensor(tensor.numpy().astype(np.float32), name=name)

    return ir.LazyTensor(compute, dtype=ir.DataType.FLOAT, shape=ir.Shape(tensor.shape.numpy()), name=name)


def _values(model: ir.Model) -> list[ir.Value]:
    values: list[ir.Value] = []
    for graph in all_graphs(model):
        values += [*graph.inputs, *graph.initializers.values()]
        values += [output for node in graph for output in node.outputs]
    return values
