"""Reading a PyTorch state dict (.pth) without PyTorch, and without running what a pickle could run.

A checkpoint is a pickle of `{name: tensor}` in which every tensor names a storage, and the storages' bytes.
Two layouts are in use:

1. zip archive (PyTorch 1.6 on): `NAME/data.pkl` and one file `NAME/data/KEY` for each storage;
2. legacy: five pickles in a row (magic number, protocol, system info, the dict, the list of storage keys),
   then for each key a little-endian int64 element count and the bytes.

The unpickler knows three names (ordered dict, tensor rebuild, storage types) and refuses all others.
"""

from __future__ import annotations

import collections
import io
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

STORAGE_DTYPES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
}


@dataclass(frozen=True, slots=True)
class _Storage:
    """A block of elements that tensors point into."""

    key: str
    dtype: np.dtype[Any]


@dataclass(frozen=True, slots=True)
class _View:
    """A tensor: a strided window (in elements) on a storage."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self, elements: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Cut the window out of the storage's elements [n] and copy it."""
        strides = [stride * elements.itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(elements[self.offset :], self.shape, strides).copy()


def _rebuild_tensor(storage: _Storage, offset: int, shape: Any, strides: Any, *_: Any) -> _View:
    """Stand in for torch._utils._rebuild_tensor_v2, whose further arguments concern training."""
    return _View(storage, offset, tuple(shape), tuple(strides))


class _StateDictUnpickler(pickle.Unpickler):
    """Loads a state dict and nothing else."""

    def find_class(self, module: str, name: str) -> Callable[..., Any] | np.dtype[Any]:
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "torch" and name in STORAGE_DTYPES:
            return np.dtype(STORAGE_DTYPES[name])
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a state dict")

    def persistent_load(self, pid: Any) -> _Storage:
        _, dtype, key, _location, _count = pid[:5]
        return _Storage(key, dtype)


def read_state_dict(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Read every tensor of a checkpoint.

    Raises:
        pickle.UnpicklingError: the file holds something other than tensors.
    """
    if zipfile.is_zipfile(path):
        views, storages = _read_zip(path)
    else:
        with path.open("rb") as file:
            views, storages = _read_legacy(file)
    return {name: view.array(storages[view.storage.key]) for name, view in views.items()}


def _read_zip(path: Path) -> tuple[dict[str, _View], dict[str, np.ndarray[Any, Any]]]:
    with zipfile.ZipFile(path) as archive:
        (pickled,) = [name for name in archive.namelist() if name.endswith("data.pkl")]
        views: dict[str, _View] = _StateDictUnpickler(io.BytesIO(archive.read(pickled))).load()
        folder = pickled.removesuffix("data.pkl") + "data/"
        used = {view.storage for view in views.values()}
        return views, {each.key: np.frombuffer(archive.read(folder + each.key), each.dtype) for each in used}


def _read_legacy(file: IO[bytes]) -> tuple[dict[str, _View], dict[str, np.ndarray[Any, Any]]]:
    for _ in ("magic number", "protocol", "system info"):
        _StateDictUnpickler(file).load()
    views: dict[str, _View] = _StateDictUnpickler(file).load()
    dtypes = {view.storage.key: view.storage.dtype for view in views.values()}
    storages = {}
    for key in _StateDictUnpickler(file).load():
        count = int.from_bytes(file.read(8), "little")
        storages[key] = np.frombuffer(file.read(count * dtypes[key].itemsize), dtypes[key])
    return views, storages
