"""Load: a path becomes a Model, a lazy onnx-ir graph whose weights stay on disk until somebody reads one.

Everything that can be wrong with a file is found here, before any work: not ONNX, truncated, external
data missing or short or outside the model's folder, operators nobody can run. Checks of the graph itself are
onnxq.graph_checks.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from onnxq.errors import ModelError
from onnxq.graph_checks import check_and_sort

__all__ = ["FLOAT_TYPES", "Model", "all_graphs", "all_initializers", "follow_links", "load", "weight_bytes"]

FLOAT_TYPES = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16})
"""Types of weights that can be quantized."""

# Domains whose operators onnxruntime carries itself; "" is the default domain (onnx-ir folds ai.onnx into it).
_RUNTIME_DOMAINS = frozenset(
    {"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc", "onnxq"}
)


@dataclass(frozen=True, slots=True)
class Model:
    """A loaded model. The graph is shared, never mutated: stages that change it work on a clone.

    Attributes:
        path: the file it came from; error messages and relative external data refer to it.
        ir: the graph, weights lazy.
        fingerprint: sha256 of the protobuf file (graph, inline weights, references to external data).
        custom_op_libraries: libraries that every session on this model has to register.
    """

    path: Path
    ir: ir.Model
    fingerprint: str
    custom_op_libraries: tuple[Path, ...] = ()


def load(path: Path | str, *, custom_op_libraries: Sequence[Path | str] = ()) -> Model:
    """Read a model without reading its weights.

    Args:
        path: an .onnx file; external data is looked for in its folder.
        custom_op_libraries: shared libraries that implement the model's custom operators.
    Raises:
        ModelError: not ONNX, truncated, a graph that cannot be (see onnxq.graph_checks), weights with fewer
            elements than their shape, external data missing, short or outside the model's folder, an operator
            domain without an implementation.
    """
    path = Path(path)
    libraries = tuple(_existing_library(Path(library)) for library in custom_op_libraries)
    proto, fingerprint = _parse(path)
    check_and_sort(path, proto)
    try:
        graph = ir.from_proto(proto)
    except Exception as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise ModelError(f"{path}: the graph is malformed: {reason}; export the model again") from error
    ir.external_data.set_base_dir(graph.graph, path.parent.absolute())
    _check_inline_data(path, graph)
    _check_external_data(path, graph)
    follow_links(path, graph)
    _check_domains(path, graph, has_libraries=bool(libraries))
    return Model(path, graph, fingerprint, libraries)


def all_graphs(model: ir.Model) -> Iterator[ir.Graph]:
    """The main graph and every subgraph of If, Loop and Scan, outermost first."""
    yield model.graph
    yield from model.graph.subgraphs()


def all_initializers(model: ir.Model) -> Iterator[ir.Value]:
    """Every initializer that has a tensor, in every scope, each once."""
    for graph in all_graphs(model):
        for value in graph.initializers.values():
            if value.const_value is not None:
                yield value


def weight_bytes(model: ir.Model) -> int:
    """Bytes of all tensors: initializers and tensors in attributes, in every scope; shared tensors once."""
    seen: dict[int, int] = {}
    for value in all_initializers(model):
        assert value.const_value is not None
        seen[id(value.const_value)] = value.const_value.nbytes
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.TENSOR and not attribute.is_ref():
                tensor = attribute.as_tensor()
                seen[id(tensor)] = tensor.nbytes
    return sum(seen.values())


def _existing_library(path: Path) -> Path:
    if not path.is_file():
        raise ModelError(f"--custom-op-lib {path}: no such file; give the path of the shared library")
    return path.absolute()


def _parse(path: Path) -> tuple[onnx.ModelProto, str]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file; check the path of the model") from None
    except IsADirectoryError:
        raise ModelError(f"{path}: is a folder; give the .onnx file inside it") from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}; check its permissions") from error
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(content)
    except DecodeError:
        raise ModelError(
            f"{path}: not an ONNX file, or truncated ({len(content)} bytes do not parse); download or export it again"
        ) from None
    if not proto.ir_version or not proto.graph.node:
        raise ModelError(f"{path}: not an ONNX model (no IR version or no nodes); export it again")
    if not proto.opset_import:
        raise ModelError(f"{path}: says no opset version, so it is truncated or broken; download or export it again")
    return proto, hashlib.sha256(content).hexdigest()


def _check_inline_data(path: Path, model: ir.Model) -> None:
    for name, tensor in _tensors(model):
        if isinstance(tensor, ir.TensorProtoTensor):
            needed, stored, unit = _inline_amounts(tensor)
        elif isinstance(tensor, ir.StringTensor):
            needed, stored, unit = tensor.size, len(tensor.raw), "strings"
        else:
            continue
        if stored != needed:
            raise ModelError(
                f"{path}: tensor '{name}' of shape {list(tensor.shape.numpy())} needs {needed} {unit} and has "
                f"{stored} {unit}; export the model again"
            )


def _inline_amounts(tensor: ir.TensorProtoTensor) -> tuple[int, int, str]:
    """What the shape of a tensor in the file needs, what is there, and in which unit."""
    raw = tensor.raw
    if raw.HasField("raw_data"):
        return tensor.nbytes, len(raw.raw_data), "bytes"
    stored = sum(
        len(field) for field in (raw.float_data, raw.int32_data, raw.int64_data, raw.double_data, raw.uint64_data)
    )
    if tensor.dtype in (ir.DataType.COMPLEX64, ir.DataType.COMPLEX128):
        return 2 * tensor.size, stored, "numbers"
    in_one = int(1 / tensor.dtype.itemsize) if tensor.dtype.itemsize < 1 else 1  # codes of 2 and 4 bits are packed
    return -(-tensor.size // in_one), stored, "numbers"


def _check_external_data(path: Path, model: ir.Model) -> None:
    folder = path.parent.resolve()
    sizes: dict[str, int] = {}
    for tensor in _external_tensors(model):
        location = str(tensor.location)
        target = (folder / location).resolve()
        if not _inside(path, location, target):
            raise ModelError(
                f"{path}: external data of '{tensor.name}' lies outside the model's folder ({location}); "
                "move it beside the model and save the model again"
            )
        if location not in sizes:
            if not target.is_file():
                raise ModelError(
                    f"{path}: external data file '{location}' is missing (needed by '{tensor.name}'); "
                    "copy it beside the model"
                )
            sizes[location] = target.stat().st_size
        start, expected = tensor.offset or 0, tensor.nbytes
        stored = tensor.length if tensor.length is not None else expected
        if start < 0 or stored != expected or start + expected > sizes[location]:
            raise ModelError(
                f"{path}: external data of '{tensor.name}' needs {expected} bytes at offset {start} (declared: "
                f"{stored}), but '{location}' has {sizes[location]} bytes; copy or download the file again"
            )


def _inside(path: Path, location: str, target: Path) -> bool:
    """May this model refer to this file? Below its folder it may, also by links that stay there.

    A download cache (Hugging Face's, for one) keeps the model itself as a link: then the data may be a link too, into
    the same folder as the model's.
    """
    if os.path.isabs(location) or os.path.normpath(location).split(os.sep)[0] == os.pardir:
        return False
    if target.is_relative_to(path.parent.resolve()):
        return True
    return path.is_symlink() and target.parent == path.resolve().parent


def follow_links(path: Path, model: ir.Model) -> None:
    """Let external tensors name the files behind links that leave the model's folder: onnx-ir does not follow those.

    Only after `load` has found the links to be good (see `_inside`).
    """
    folder = path.parent.resolve()

    def direct(tensor: ir.ExternalTensor) -> ir.ExternalTensor | None:
        target = (folder / tensor.location).resolve()
        if target.is_relative_to(folder):
            return None
        place = (target.name, tensor.offset, tensor.length, tensor.dtype)
        return ir.ExternalTensor(*place, shape=tensor.shape, name=tensor.name or "", base_dir=target.parent)

    for value in all_initializers(model):
        if isinstance(value.const_value, ir.ExternalTensor) and (found := direct(value.const_value)) is not None:
            value.const_value = found
    for node in _all_nodes(model):
        for name, attribute in list(node.attributes.items()):
            tensor = attribute.value if attribute.type == ir.AttributeType.TENSOR else None
            if isinstance(tensor, ir.ExternalTensor) and (found := direct(tensor)) is not None:
                node.attributes[name] = ir.AttrTensor(name, found)


def _external_tensors(model: ir.Model) -> Iterator[ir.ExternalTensor]:
    for _, tensor in _tensors(model):
        if isinstance(tensor, ir.ExternalTensor):
            yield tensor


def _tensors(model: ir.Model) -> Iterator[tuple[str, ir.TensorProtocol]]:
    """Every tensor with a name for it: initializers, and attributes of nodes, functions included."""
    for value in all_initializers(model):
        assert value.const_value is not None
        yield value.name or "", value.const_value
    for node in _all_nodes(model):
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.TENSOR and not attribute.is_ref():
                tensor = attribute.as_tensor()
                yield tensor.name or next((output.name or "" for output in node.outputs), ""), tensor


def _all_nodes(model: ir.Model) -> Iterator[ir.Node]:
    """Nodes of every graph and of every function."""
    yield from ir.traversal.RecursiveGraphIterator(model.graph)
    for function in model.functions.values():
        yield from function.all_nodes()


def _check_domains(path: Path, model: ir.Model, *, has_libraries: bool) -> None:
    if has_libraries:  # the session will tell; only the library knows what it implements
        return
    for node in _all_nodes(model):
        if node.domain not in _RUNTIME_DOMAINS and node.op_identifier() not in model.functions:
            raise ModelError(
                f"{path}: node '{node.name}' is the custom operator {node.domain}::{node.op_type}, which "
                "onnxruntime does not have; give the library that implements it with --custom-op-lib"
            )
