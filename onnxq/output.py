"""Output: a model and its external data appear under their final names at once, or not at all.

Everything is written in a hidden folder beside the output and renamed into place at the end. The data file's
name carries a digest of the model, so a new data file never overwrites the one that an existing model refers to:
until the model file itself is replaced, in one atomic rename, the old pair stays whole.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import onnx
import onnx_ir as ir

from onnxq.errors import OutputError
from onnxq.model import all_initializers

__all__ = ["ModelWriter", "write_bytes", "write_text"]

INLINE_LIMIT = 1 << 20
"""A model whose tensors stay below 1 MiB is one file. Above, external data: onnxruntime maps it, whereas inline
initializers are copied and kept."""

_EXTERNAL_FROM = 1024
"""Tensors below 1 KiB stay in the model file: the shapes and scalars that every graph tool wants to see."""

_PAGE, _LINE = 4096, 64
"""Large tensors start on a page, so that mapping and releasing them touches nobody else; small ones on a cache line."""

_PAGED_FROM = 1 << 20


class ModelWriter:
    """Writes one model beside its final place. Use as a context manager: leaving without `commit` removes all traces.

    Args:
        path: final path of the .onnx file.
        overwrite: allow replacing an existing file.
    Raises:
        OutputError: the path exists (without overwrite), is a folder, or its folder cannot be written.
    """

    def __init__(self, path: Path, *, overwrite: bool) -> None:
        self._final = path
        if path.is_dir():
            raise OutputError(f"{path}: is a folder; give the name of a file with -o")
        if path.exists() and not overwrite:
            raise OutputError(f"{path}: exists already; pass --overwrite or another name with -o")
        with _reported(path):
            self._folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
        self._data_path = self._folder / "tensors"
        self._data: BinaryIO | None = None
        self._digest = hashlib.sha256()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._data is not None:
            with suppress(OSError):
                self._data.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def store(self, tensor: ir.TensorProtocol, name: str) -> ir.TensorProtocol:
        """Append a tensor to the data file; returns the external tensor that stands for it."""
        with _reported(self._final):
            if self._data is None:
                self._data = self._data_path.open("wb")
            alignment = _PAGE if tensor.nbytes >= _PAGED_FROM else _LINE
            offset = -(-self._data.tell() // alignment) * alignment
            content = tensor.tobytes()
            self._data.write(b"\0" * (offset - self._data.tell()))
            self._data.write(content)
        self._digest.update(content)
        return ir.ExternalTensor(
            self._data_path.name,
            offset,
            len(content),
            tensor.dtype,
            shape=ir.Shape(tensor.shape.numpy()),
            name=name,
            base_dir=self._folder,
        )

    def write(self, model: ir.Model) -> Path:
        """Write the model with everything it needs into the hidden folder; returns its path there.

        Tensors of 1 KiB and more join the data file; if the data file stays below 1 MiB it is taken back into
        the model instead. The model's own tensors are replaced accordingly. Strings stay in the model: ONNX has no
        external form for them.
        """
        kept: dict[int, ir.TensorProtocol] = {}
        for value in all_initializers(model):
            tensor = value.const_value
            assert tensor is not None
            if tensor.dtype == ir.DataType.STRING or self._is_ours(tensor):
                continue
            if tensor.nbytes >= _EXTERNAL_FROM:
                if id(tensor) not in kept:
                    kept[id(tensor)] = self.store(tensor, value.name or "")
                value.const_value = kept[id(tensor)]
            elif isinstance(tensor, ir.ExternalTensor):  # small, but in a file that stays behind
                value.const_value = ir.Tensor(tensor.numpy().copy(), dtype=tensor.dtype, name=tensor.name)
        with _reported(self._final):
            if self._data is not None:
                self._data.close()
                self._place_data(model)
            target = self._folder / self._final.name
            proto = ir.to_proto(model)
            _name_initializers(proto, model)
            target.write_bytes(proto.SerializeToString(deterministic=True))
        return target

    def commit(self) -> tuple[Path, ...]:
        """Move everything to its final place; returns the files that now exist, the model first."""
        files, created = [self._final], []
        with _reported(self._final):
            old_data = _own_data_files(self._final)
            try:
                for path in self._folder.iterdir():
                    if path.name == self._final.name:
                        continue
                    target = self._final.parent / path.name
                    created += [] if target.exists() else [target]
                    os.replace(path, target)
                    files.append(target)
                os.replace(self._folder / self._final.name, self._final)
            except BaseException:
                for path in created:
                    path.unlink(missing_ok=True)
                raise
            for path in old_data - set(files):
                path.unlink(missing_ok=True)
        return tuple(files)

    def _is_ours(self, tensor: ir.TensorProtocol) -> bool:
        return isinstance(tensor, ir.ExternalTensor) and Path(tensor.base_dir) == self._folder

    def _place_data(self, model: ir.Model) -> None:
        """Give the data file its final name, or dissolve it when it is small."""
        inline = self._data_path.stat().st_size < INLINE_LIMIT
        name = f"{_stem(self._final)}.{self._digest.hexdigest()[:8]}.data"
        if not inline:
            self._data_path.rename(self._folder / name)
        for value in all_initializers(model):
            tensor = value.const_value
            if not isinstance(tensor, ir.ExternalTensor) or not self._is_ours(tensor):
                continue
            if inline:
                value.const_value = ir.Tensor(tensor.numpy().copy(), dtype=tensor.dtype, name=tensor.name)
            else:
                value.const_value = ir.ExternalTensor(
                    name,
                    tensor.offset,
                    tensor.length,
                    tensor.dtype,
                    shape=ir.Shape(tensor.shape.numpy()),
                    name=tensor.name,
                    base_dir=self._folder,
                )
        if inline:
            self._data_path.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a small text file beside its place and rename it, over an existing one.

    Raises:
        OutputError: the folder cannot be written or the disk is full.
    """
    write_bytes(path, text.encode("utf8"), overwrite=True)


def write_bytes(path: Path, content: bytes, *, overwrite: bool) -> None:
    """Write a small file beside its place and rename it.

    Raises:
        OutputError: it exists (without overwrite), the folder cannot be written or the disk is full.
    """
    if path.exists() and not overwrite:
        raise OutputError(f"{path}: exists already; pass --overwrite or another name with -o")
    with (
        _reported(path),
        tempfile.TemporaryDirectory(prefix=f".{path.name}.", suffix=".partial", dir=path.parent) as folder,
    ):
        partial = Path(folder) / path.name
        partial.write_bytes(content)
        os.replace(partial, path)


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        hints = {
            errno.ENOSPC: "free some space",
            errno.EACCES: "choose a folder that you may write to with -o",
            errno.EROFS: "choose a folder that you may write to with -o",
            errno.ENOENT: "create the folder first",
        }
        hint = hints.get(error.errno or 0, "choose another place with -o")
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}; {hint}") from error


def _stem(path: Path) -> str:
    return path.name.removesuffix(".onnx")


def _own_data_files(path: Path) -> set[Path]:
    """Data files that an existing model at `path` refers to and that carry our name for it."""
    if not path.is_file():
        return set()
    try:
        tensors = [value.const_value for value in all_initializers(ir.load(path))]
    except Exception:  # noqa: BLE001  # whatever was there is no model of ours, and is being replaced
        return set()
    pattern = re.compile(re.escape(_stem(path)) + r"\.[0-9a-f]{8}\.data")
    names = {str(tensor.location) for tensor in tensors if isinstance(tensor, ir.ExternalTensor)}
    return {path.parent / name for name in names if pattern.fullmatch(name)}


def _name_initializers(proto: onnx.ModelProto, model: ir.Model) -> None:
    """Check that every initializer carries its value's own name, also where several share one tensor."""
    names = {tensor.name for tensor in proto.graph.initializer}
    missing = set(model.graph.initializers) - names
    assert not missing, f"initializers lost their names: {sorted(missing)[:3]}"
