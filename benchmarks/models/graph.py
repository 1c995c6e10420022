"""Writing an ONNX graph node by node: the tool that the builders share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
"""Old enough for every runtime in use, new enough for LayerNormalization."""

IR_VERSION = 8
"""The IR version that came with opset 17."""

EXTERNAL_DATA_THRESHOLD = 1024
"""Tensors of at least this many bytes go to the data file: small constants stay readable in the graph."""


class GraphWriter:
    """Collects nodes and initializers in the order they are written.

    Nodes are named `SCOPE/OpType`, numbered when that repeats; each has one output, named like the node.
    """

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}
        self._names: Counter[str] = Counter()
        self._scope = ""

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Prefix the names of nodes written inside the block, e.g. "/layers.0/attention"."""
        outer, self._scope = self._scope, self._scope + name
        yield
        self._scope = outer

    def initializer(self, name: str, array: np.ndarray[Any, Any]) -> str:
        """Store a tensor under `name` and return the name; the first tensor of a name stays."""
        if name not in self._initializers:
            self._initializers[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def integers(self, name: str, values: Sequence[int]) -> str:
        """Store an int64 vector (an axis, a shape)."""
        return self.initializer(name, np.array(values, np.int64))

    def scalar(self, name: str, value: float) -> str:
        """Store a float32 scalar."""
        return self.initializer(name, np.array(value, np.float32))

    def node(self, op_type: str, inputs: Sequence[str], *, output: str | None = None, **attributes: Any) -> str:
        """Append a node and return the name of its output.

        Args:
            output: what to call the output, where it is one of the graph's.
            attributes: the ONNX attributes of the operator.
        """
        name = f"{self._scope}/{op_type}"
        self._names[name] += 1
        if self._names[name] > 1:
            name = f"{name}_{self._names[name] - 1}"
        self._nodes.append(helper.make_node(op_type, list(inputs), [output or name], name=name, **attributes))
        return output or name

    def model(
        self, name: str, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto]
    ) -> onnx.ModelProto:
        """Close the graph."""
        initializers = list(self._initializers.values())
        graph = helper.make_graph(self._nodes, name, list(inputs), list(outputs), initializers)
        opsets = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="onnxq-benchmarks")


def float_tensor(name: str, shape: Sequence[int | str]) -> onnx.ValueInfoProto:
    """Declare a float32 graph input or output; a string is a free dimension."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def int_tensor(name: str, shape: Sequence[int | str]) -> onnx.ValueInfoProto:
    """Declare an int64 graph input or output; a string is a free dimension."""
    return helper.make_tensor_value_info(name, TensorProto.INT64, list(shape))


def save_checked(model: onnx.ModelProto, path: Path, *, external_data: bool = False) -> None:
    """Write a model, its big tensors beside it in `NAME.onnx.data` if asked, and check what was written."""
    if external_data:
        onnx.save_model(
            model,
            path,
            save_as_external_data=True,
            all_tensors_to_one_file=True,
            location=path.name + ".data",
            size_threshold=EXTERNAL_DATA_THRESHOLD,
        )
    else:
        onnx.save_model(model, path)
    onnx.checker.check_model(path, full_check=True)
