"""Scratch: a graph in memory made runnable, without copying the weights that already lie in files.

onnxruntime reads external data only below one folder. That folder is taken to be the deepest one that holds both
the model's own data files, which are referred to where they lie, and a temporary file with the tensors that exist
nowhere else (inline initializers, weights that normalisation derived). Each of those is computed once, written and
forgotten.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir

from onnxq.model import Model, all_initializers
from onnxq.session import Session, SessionOptions

__all__ = ["Scratch", "scratch_copy"]

_INLINE_BELOW = 1024
"""Smaller tensors stay in the protobuf: shapes and scalars that graph optimisations look at."""

_ALIGNMENT = 4096
"""onnxruntime maps a tensor that starts on a page and reads (copies) any other."""


@dataclass(frozen=True, slots=True)
class Scratch:
    """A model whose tensors all lie in files.

    Attributes:
        path: what to call it in errors.
        proto: the graph; external data refers to `base`.
        base: folder below which all data files lie.
    """

    path: Path
    proto: onnx.ModelProto
    base: Path

    def session(
        self,
        options: SessionOptions,
        outputs: Sequence[str],
        *,
        shapes_of: Sequence[str] = (),
        overridable: Sequence[str] = (),
    ) -> tuple[Session, dict[str, str]]:
        """Load it with other outputs; whatever they do not need is not computed.

        Args:
            options: of the session.
            outputs: names of values of the main graph.
            shapes_of: values whose shape is wanted, but not their content.
            overridable: initializers of the main graph that a feed may replace for one run.
        Returns:
            The session, and the name of the int64 output that holds the shape of each of `shapes_of`.
        """
        proto = onnx.ModelProto()
        proto.CopyFrom(self.proto)
        shapes = {name: f"{name}/onnxq_shape" for name in shapes_of}
        proto.graph.node.extend(onnx.helper.make_node("Shape", [name], [shape]) for name, shape in shapes.items())
        known = {output.name: output for output in self.proto.graph.output}
        del proto.graph.output[:]
        for name in dict.fromkeys([*outputs, *shapes.values()]):
            proto.graph.output.append(known.get(name, onnx.ValueInfoProto(name=name)))
        _prune(proto.graph)
        proto.graph.input.extend(_as_input(tensor) for tensor in proto.graph.initializer if tensor.name in overridable)
        return Session.from_proto(proto, options, path=self.path, base=self.base), shapes


@contextmanager
def scratch_copy(model: Model) -> Iterator[Scratch]:
    """Make a model runnable for as long as the context lasts; the model is left as it is."""
    with tempfile.TemporaryDirectory(prefix="onnxq-") as folder:
        graph = model.ir.clone()
        derived = Path(os.path.realpath(folder)) / "derived.data"
        base = Path(os.path.commonpath([derived.parent, *(_real(tensor).parent for tensor in _in_files(graph))]))
        placed: dict[int, ir.TensorProtocol] = {}
        with derived.open("wb") as file:
            for value in all_initializers(graph):
                tensor = value.const_value
                assert tensor is not None
                if tensor.nbytes < _INLINE_BELOW or tensor.dtype == ir.DataType.STRING:  # strings have no other form
                    if isinstance(tensor, ir.ExternalTensor):  # its location is not relative to `base`
                        value.const_value = ir.Tensor(tensor.numpy().copy(), dtype=tensor.dtype, name=tensor.name)
                    continue
                if id(tensor) not in placed:
                    offset, path = 0, derived
                    if isinstance(tensor, ir.ExternalTensor):
                        offset, path = tensor.offset or 0, _real(tensor)
                    else:
                        offset = -(-file.tell() // _ALIGNMENT) * _ALIGNMENT
                        file.seek(offset)
                        file.write(tensor.tobytes())
                    placed[id(tensor)] = _reference(tensor, path.relative_to(base), offset, base)
                value.const_value = placed[id(tensor)]
        yield Scratch(model.path, ir.to_proto(graph), base)


def _as_input(tensor: onnx.TensorProto) -> onnx.ValueInfoProto:
    """An input of an initializer's name makes the initializer its default."""
    return onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))


def _prune(graph: onnx.GraphProto) -> None:
    """Drop nodes and initializers that no output needs: onnxruntime would run every node it is given."""
    needed = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):  # the nodes of a graph are sorted
        if needed.intersection(node.output):
            needed.update(_reads(node))
            kept.append(node)
    initializers = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(initializers)


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """Names that a node reads, also those that its subgraphs take from around them."""
    yield from node.input
    for attribute in node.attribute:
        for graph in [attribute.g, *attribute.graphs]:
            for inner in graph.node:
                yield from _reads(inner)
            yield from (output.name for output in graph.output)


def _in_files(model: ir.Model) -> Iterator[ir.ExternalTensor]:
    for value in all_initializers(model):
        if isinstance(value.const_value, ir.ExternalTensor) and value.const_value.nbytes >= _INLINE_BELOW:
            yield value.const_value


def _real(tensor: ir.ExternalTensor) -> Path:
    """Where the file really lies: onnxruntime follows links before it compares folders."""
    return Path(os.path.realpath(tensor.path))


def _reference(tensor: ir.TensorProtocol, location: Path, offset: int, base: Path) -> ir.TensorProtocol:
    return ir.ExternalTensor(
        location.as_posix(),
        offset,
        tensor.nbytes,
        tensor.dtype,
        shape=ir.Shape(tensor.shape.numpy()),
        name=tensor.name or "",
        base_dir=base,
    )
