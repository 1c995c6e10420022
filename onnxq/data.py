"""Data: what a user gives with --data becomes feeds, one batch at a time, checked against the model's inputs.

| DATA | a batch is |
|---|---|
| folder of .npz | one file: an array per input, by name |
| folder of .npy | one file: the array of the model's only input |
| folder with `test_data_set_*`, or one such folder | one set: `input_0.pb`, `input_1.pb`... in input order |
| one .npz | one sample: arrays stacked along a first axis, which is kept as a batch of one where the rank asks for it |
| `module:function` | what the function yields: dicts of arrays; it is called again for every pass |

Inputs that a stateful model feeds back to itself (see onnxq.state) may be left out of any batch. Nothing is unpickled.
`random`, and no data at all, are understood by onnxq.data_free.
"""

from __future__ import annotations

import importlib
import re
import sys
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from onnxq.errors import DataError
from onnxq.session import Feed, InputSpec

__all__ = ["Data", "held_out", "open_data"]


@dataclass(frozen=True, slots=True)
class Data:
    """Batches that can be gone through again and again.

    Attributes:
        origin: what the user gave, for messages.
        batches: makes a fresh iterator over checked feeds.
    """

    origin: str
    batches: Callable[[], Iterator[Feed]]

    def count(self) -> int:
        """Number of batches, by going through them once."""
        return sum(1 for _ in self.batches())


def open_data(origin: str, inputs: Sequence[InputSpec], *, state_inputs: Collection[str] = ()) -> Data:
    """Understand a --data argument; the first batch is read and checked at once.

    Args:
        origin: what the user gave.
        inputs: of the model.
        state_inputs: names of those that a batch may leave out.
    Raises:
        DataError: it does not exist, is empty, or its first batch does not fit the model.
    """
    needed = [spec for spec in inputs if spec.name not in state_inputs]
    make = _reader(origin, inputs, needed)

    def batches() -> Iterator[Feed]:
        index = -1
        iterator = iter(_guarded(origin, make))
        for index, feed in enumerate(iterator):
            yield _checked(feed, inputs, state_inputs, f"{origin}, batch {index}")
        if index < 0:
            raise DataError(
                f"--data {origin}: no batches at all; give at least one"
                + (", and let the function start afresh on every call" if _FUNCTION.fullmatch(origin) else "")
            )

    next(batches())
    return Data(origin, batches)


def held_out(data: Data) -> tuple[Data, int, int]:
    """The batches kept for verification (the last fifth, at least one), their number, and the number of all."""
    total = data.count()
    kept = max(1, total // 5)
    return Data(data.origin, lambda: islice(data.batches(), total - kept, None)), kept, total


_Reader = Callable[[], Iterable[Feed]]


_FUNCTION = re.compile(r"[\w.]+:\w+")


def _reader(origin: str, inputs: Sequence[InputSpec], needed: Sequence[InputSpec]) -> _Reader:
    path = Path(origin)
    if path.is_dir():
        return _folder_reader(path, inputs, needed)
    if path.is_file():
        if path.suffix == ".npz":
            return lambda: _stacked(path, inputs)
        raise DataError(f"--data {path}: a {path.suffix or 'nameless'} file; give a .npz, a folder or module:function")
    if _FUNCTION.fullmatch(origin):
        return _function_reader(origin)
    raise DataError(f"--data {origin}: no such file or folder, and not module:function; check the path")


def _folder_reader(path: Path, inputs: Sequence[InputSpec], needed: Sequence[InputSpec]) -> _Reader:
    sets = [path] if (path / "input_0.pb").is_file() else sorted(path.glob("test_data_set_*"), key=_natural)
    if sets:
        return lambda: (_test_data_set(folder, inputs, needed) for folder in sets)
    archives = sorted(path.glob("*.npz"), key=_natural)
    arrays = sorted(path.glob("*.npy"), key=_natural)
    if archives and arrays:
        raise DataError(f"--data {path}: holds both .npz and .npy files; keep one kind")
    if archives:
        return lambda: (dict(_load_npz(file)) for file in archives)
    if arrays:
        if len(needed) != 1:
            raise DataError(
                f"--data {path}: .npy files feed a model with one input, this one has {len(needed)} "
                f"({', '.join(spec.name for spec in needed)}); use .npz files with an array per input"
            )
        return lambda: ({needed[0].name: _load(file)} for file in arrays)
    raise DataError(f"--data {path}: the folder has no .npz, .npy or test_data_set_*; put batches there")


def _function_reader(origin: str) -> _Reader:
    module_name, _, function_name = origin.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")  # a module in the working directory, as with `python -m`
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except Exception as error:  # the user's module may raise anything
        raise DataError(
            f"--data {origin}: {type(error).__name__}: {error}; check the module's name and path"
        ) from error
    if not callable(function):
        raise DataError(f"--data {origin}: is a {type(function).__name__}, not a function that yields feeds")
    return lambda: function()


def _guarded(origin: str, make: _Reader) -> Iterator[Any]:
    """Errors of the user's own iterator, named."""
    try:
        yield from make()
    except (DataError, GeneratorExit):
        raise
    except Exception as error:  # the user's iterator may raise anything
        raise DataError(f"--data {origin}: raised {type(error).__name__}: {error}; repair the reader") from error


def _stacked(path: Path, inputs: Sequence[InputSpec]) -> Iterator[Feed]:
    arrays = _load_npz(path)
    lengths = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"--data {path}: stacked arrays differ in length ({lengths}); stack one entry per sample")
    ranks = {spec.name: len(spec.shape) for spec in inputs}
    for index in range(next(iter(lengths.values()), 0)):
        yield {
            name: array[index : index + 1] if array.ndim == ranks.get(name) else array[index]
            for name, array in arrays.items()
        }


_BROKEN_FILE = (ValueError, TypeError, OSError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error)
"""What numpy and zipfile raise for files that are damaged or something else."""


def _load(path: Path) -> npt.NDArray[Any]:
    with _refused(path, "numpy.save"):
        array = np.load(path, allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise ValueError("holds several arrays; name it .npz")
        return array


def _load_npz(path: Path) -> dict[str, npt.NDArray[Any]]:
    with _refused(path, "numpy.savez"), np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


@contextmanager
def _refused(path: Path, how: str) -> Iterator[None]:
    try:
        yield
    except _BROKEN_FILE as error:
        pickled = "pickle" in str(error).lower()
        reason = "holds pickled objects, which are refused" if pickled else f"cannot be read: {error}"
        raise DataError(f"--data {path}: {reason}; save plain arrays with {how}") from error


def _test_data_set(folder: Path, inputs: Sequence[InputSpec], needed: Sequence[InputSpec]) -> Feed:
    feed: dict[str, npt.NDArray[Any]] = {}
    for index, spec in enumerate(inputs):
        file = folder / f"input_{index}.pb"
        tensor = onnx.TensorProto()
        try:
            tensor.ParseFromString(file.read_bytes())
            feed[tensor.name if tensor.name in {item.name for item in inputs} else spec.name] = numpy_helper.to_array(
                tensor
            )
        except FileNotFoundError:
            if spec not in needed:
                continue
            raise DataError(f"--data {folder}: input_{index}.pb (for '{spec.name}') is missing") from None
        except Exception as error:  # protobuf and onnx raise several kinds for a broken tensor
            raise DataError(f"--data {file}: not a tensor: {error}; write the test data set again") from error
    return feed


def _checked(feed: Any, inputs: Sequence[InputSpec], optional: Collection[str], where: str) -> Feed:
    """The feed with arrays that fit, or a DataError naming input, expected and got."""
    if not isinstance(feed, dict):
        raise DataError(f"--data {where}: a {type(feed).__name__}, expected a dict of arrays by input name")
    missing = [spec.name for spec in inputs if spec.name not in feed and spec.name not in optional]
    if missing:
        raise DataError(
            f"--data {where}: input '{missing[0]}' is missing; got {', '.join(sorted(map(str, feed))) or 'nothing'}"
        )
    return {spec.name: _checked_array(feed[spec.name], spec, where) for spec in inputs if spec.name in feed}


def _checked_array(given: Any, spec: InputSpec, where: str) -> npt.NDArray[Any]:
    try:
        array = np.asarray(given)
    except (ValueError, TypeError) as error:
        raise DataError(
            f"--data {where}: input '{spec.name}' is a {type(given).__name__} that makes no array ({error}); "
            "give numpy arrays"
        ) from error
    if spec.dtype.kind == "U":
        array = _strings(array, spec, where)
    elif array.dtype != spec.dtype:
        raise DataError(
            f"--data {where}: input '{spec.name}' has dtype {array.dtype}, expected {spec.dtype}; "
            f"convert it with .astype('{spec.dtype}')"
        )
    expected = "[" + ", ".join(str(dim) if dim is not None else "?" for dim in spec.shape) + "]"
    fits = array.ndim == len(spec.shape) and all(
        not isinstance(dim, int) or dim < 0 or dim == size for dim, size in zip(spec.shape, array.shape, strict=True)
    )
    if not fits:
        raise DataError(
            f"--data {where}: input '{spec.name}' has shape {list(array.shape)}, expected {expected}; reshape it"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError(f"--data {where}: input '{spec.name}' holds NaN or infinity; remove that sample")
    return array


def _strings(array: npt.NDArray[Any], spec: InputSpec, where: str) -> npt.NDArray[Any]:
    """Strings of any length, or UTF-8 bytes (onnxruntime misreads arrays of bytes), as an array of str objects."""
    try:
        items = [item.decode("utf8") if isinstance(item, bytes) else item for item in array.reshape(-1).tolist()]
    except UnicodeDecodeError as error:
        raise DataError(
            f"--data {where}: input '{spec.name}' holds bytes that are no UTF-8 ({error}); encode them so"
        ) from error
    if array.dtype.kind not in "USO" or not all(isinstance(item, str) for item in items):
        raise DataError(
            f"--data {where}: input '{spec.name}' has dtype {array.dtype}, expected strings; "
            "convert it with .astype(str)"
        )
    strings = np.empty(len(items), dtype=object)
    strings[:] = items
    return strings.reshape(array.shape)


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sort key by which 2 comes before 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name) if part]
