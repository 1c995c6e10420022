"""Session: the only module that runs onnxruntime, so that options reach every session that is ever made."""

from __future__ import annotations

import ctypes
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from onnxq.errors import InstallationError, SessionError
from onnxq.library import library_path

__all__ = [
    "CUDA_PROVIDER",
    "Feed",
    "InputSpec",
    "Session",
    "SessionOptions",
    "check_installation",
    "cuda_present",
    "execution_providers",
    "node_providers",
    "node_times",
    "optimised_graph",
    "registration_error",
]

CUDA_PROVIDER = "CUDAExecutionProvider"

Feed = Mapping[str, npt.NDArray[np.generic]]
"""One batch: an array for every input, by name."""


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """How every session of one command is made.

    Attributes:
        custom_op_libraries: the user's own libraries.
        use_library: register onnxq's kernels too; without them this is stock onnxruntime.
        threads: intra-op threads; 0 lets onnxruntime choose.
        optimise: run graph optimisations (off only to observe a graph exactly as written).
        cuda: prefer onnxruntime's CUDA provider; see `cuda_present`.
    """

    custom_op_libraries: tuple[Path, ...] = ()
    use_library: bool = False
    threads: int = 0
    optimise: bool = True
    cuda: bool = False

    @property
    def providers(self) -> list[str]:
        """Execution providers, the preferred one first."""
        return [*([CUDA_PROVIDER] if self.cuda else []), "CPUExecutionProvider"]


@dataclass(frozen=True, slots=True)
class InputSpec:
    """A model input: its name, numpy dtype and dims (int, or str / None where symbolic / unknown)."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str | None, ...]


_NUMPY_TYPES = {
    "float": "float32",
    "double": "float64",
    "int8": "int8",
    "uint8": "uint8",
    "int16": "int16",
    "uint16": "uint16",
    "int32": "int32",
    "uint32": "uint32",
    "int64": "int64",
    "uint64": "uint64",
    "bool": "bool",
    "float16": "float16",
    "string": "str",
}


class Session:
    """A loaded model.

    Args:
        path: the model file.
        options: see SessionOptions.
        extra_outputs: names of intermediate values to return besides the model's own outputs.
    Raises:
        SessionError: onnxruntime refuses the model.
    """

    def __init__(self, path: Path, options: SessionOptions, *, extra_outputs: Sequence[str] = ()) -> None:
        if extra_outputs:
            proto, base = _with_outputs(path, extra_outputs)
            self._open(proto, options, path, base)
        else:
            self._open(str(path), options, path, None)

    @classmethod
    def from_proto(cls, proto: onnx.ModelProto, options: SessionOptions, *, path: Path, base: Path) -> Session:
        """Load a graph from memory.

        Args:
            proto: the model; large tensors are external.
            options: see SessionOptions.
            path: what to call it in errors.
            base: folder that its external data is relative to.
        """
        session = cls.__new__(cls)
        session._open(proto.SerializeToString(), options, path, base)
        return session

    def _open(self, source: str | bytes, options: SessionOptions, path: Path, base: Path | None) -> None:
        ort = _onnxruntime()
        self._path = path
        settings = _settings(options)
        if base is not None:
            settings.add_session_config_entry("session.model_external_initializers_file_folder_path", str(base))
        try:
            self._session = ort.InferenceSession(source, settings, providers=options.providers)
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise SessionError(f"{path}: onnxruntime cannot load it: {_first_line(error)}") from error
        self.outputs = tuple(output.name for output in self._session.get_outputs())

    @property
    def inputs(self) -> tuple[InputSpec, ...]:
        """What the model wants to be fed; optional inputs with defaults left out."""
        return tuple(_input_spec(item) for item in self._session.get_inputs())

    @property
    def unfed(self) -> tuple[tuple[str, str], ...]:
        """Name and type of each input that no array can be given for."""
        return tuple((item.name, item.type) for item in self._session.get_inputs() if _dtype(item) is None)

    def run(self, feed: Feed, outputs: Sequence[str] | None = None) -> dict[str, npt.NDArray[Any]]:
        """Run one batch.

        Raises:
            SessionError: onnxruntime fails on it; the message names the model.
        """
        names = list(outputs) if outputs is not None else list(self.outputs)
        try:
            values = self._session.run(names, dict(feed))
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise SessionError(f"{self._path}: running it fails: {_first_line(error)}") from error
        return dict(zip(names, values, strict=True))


def node_times(path: Path, options: SessionOptions, feed: Feed, *, runs: int) -> dict[str, float]:
    """Median milliseconds of each node that onnxruntime really runs, by its name in the optimised graph."""
    ort = _onnxruntime()
    settings = _settings(options)
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="onnxq-") as folder:
        settings.enable_profiling = True
        settings.profile_file_prefix = str(Path(folder) / "profile")
        try:
            session = ort.InferenceSession(str(path), settings, providers=options.providers)
            for _ in range(runs):
                session.run(None, dict(feed))
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf8"))
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise SessionError(f"{path}: profiling it fails: {_first_line(error)}") from error
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_KERNEL_TIME):
            times.setdefault(event["name"].removesuffix(_KERNEL_TIME), []).append(event["dur"] / 1e3)
    return {name: float(np.median(rows)) for name, rows in times.items()}


def optimised_graph(path: Path, options: SessionOptions) -> onnx.GraphProto:
    """The graph that onnxruntime would really run, weights left out."""
    ort = _onnxruntime()
    settings = _settings(options)
    with tempfile.TemporaryDirectory(prefix="onnxq-") as folder:
        target = Path(folder) / "optimised.onnx"
        settings.optimized_model_filepath = str(target)
        settings.add_session_config_entry("session.optimized_model_external_initializers_file_name", "optimised.data")
        try:
            ort.InferenceSession(str(path), settings, providers=options.providers)
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise SessionError(f"{path}: onnxruntime cannot load it: {_first_line(error)}") from error
        return onnx.load(target, load_external_data=False).graph


def node_providers(path: Path, options: SessionOptions) -> dict[str, str]:
    """The execution provider that onnxruntime gives each node to, by the names that nodes have in the file.

    Nodes of functions that are inlined go by other names and are not found here.
    """
    ort = _onnxruntime()
    settings = _settings(options)
    settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    try:
        session = ort.InferenceSession(str(path), settings, providers=options.providers)
    except Exception as error:  # onnxruntime's exceptions share no base class
        raise SessionError(f"{path}: onnxruntime cannot load it: {_first_line(error)}") from error
    parts = session.get_provider_graph_assignment_info()
    return {node.name: part.ep_name for part in parts for node in part.get_nodes()}


def cuda_present() -> bool:
    """Can onnxruntime run a model on a GPU here? The driver is asked first: onnxruntime would complain aloud."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        count = ctypes.c_int(0)
        if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
            return False
    except (OSError, AttributeError):  # no driver, or a library of that name that is none
        return False
    ort = _onnxruntime()
    options = SessionOptions(cuda=True)
    if CUDA_PROVIDER not in ort.get_available_providers():
        return False
    value = onnx.helper.make_tensor_value_info
    one = [value(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "probe", one[:1], one[1:])
    probe = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    session = ort.InferenceSession(probe.SerializeToString(), _settings(options), providers=options.providers)
    return CUDA_PROVIDER in session.get_providers()


_KERNEL_TIME = "_kernel_time"
"""How onnxruntime's profile marks the time that a kernel took."""


def check_installation() -> str:
    """Version of onnxruntime in use.

    Raises:
        InstallationError: it is missing, or two distributions of it share one import folder.
    """
    present = []
    for name in ("onnxruntime", "onnxruntime-gpu"):
        try:
            present.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            continue
    if len(present) > 1:
        listed = " and ".join(f"{name} {version}" for name, version in present)
        raise InstallationError(
            f"{listed} are both installed and overwrite each other's files; "
            "pip uninstall onnxruntime onnxruntime-gpu, then install the one you want"
        )
    if not present:
        raise InstallationError("onnxruntime is not installed; pip install onnxruntime-gpu (or onnxruntime)")
    return present[0][1]


def execution_providers() -> tuple[str, ...]:
    """What this build of onnxruntime has, best first; whether the machine can run them is not asked."""
    return tuple(_onnxruntime().get_available_providers())


def registration_error() -> str:
    """Why onnxruntime refuses onnxq's kernels; empty if it takes them."""
    settings = _onnxruntime().SessionOptions()
    try:
        settings.register_custom_ops_library(str(library_path()))
    except Exception as error:  # noqa: BLE001  # onnxruntime's exceptions share no base class
        return _first_line(error)
    return ""


def _onnxruntime() -> Any:
    check_installation()
    import onnxruntime  # importing it costs a second that `onnxq --help` should not pay

    return onnxruntime


def _settings(options: SessionOptions) -> Any:
    ort = _onnxruntime()
    settings = ort.SessionOptions()
    settings.log_severity_level = 4  # its errors come back as exceptions; the log would say them twice
    settings.intra_op_num_threads = options.threads
    if not options.optimise:
        settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    for library in options.custom_op_libraries:
        try:
            settings.register_custom_ops_library(str(library))
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise SessionError(f"--custom-op-lib {library}: cannot be registered: {_first_line(error)}") from error
    if options.use_library:
        settings.register_custom_ops_library(str(library_path()))
    return settings


def _with_outputs(path: Path, names: Sequence[str]) -> tuple[bytes, Path]:
    """The model file with more graph outputs, and the folder that its external data, left in place, is relative to."""
    proto = onnx.load(path, load_external_data=False)
    known = {output.name for output in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    base = path.parent.absolute()
    if path.is_symlink():  # as in a download cache: from memory, onnxruntime refuses links that leave the base
        folder, base = base, path.resolve().parent
        for tensor in _initializers(proto.graph):
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = os.path.relpath((folder / entry.value).resolve(), base)
    return bytes(proto.SerializeToString()), base


def _initializers(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Those of a graph and of the bodies of its nodes."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            for body in [attribute.g, *attribute.graphs]:
                yield from _initializers(body)


def _dtype(item: Any) -> str | None:
    return _NUMPY_TYPES.get(str(item.type).removeprefix("tensor(").removesuffix(")"))


def _input_spec(item: Any) -> InputSpec:
    dtype = _dtype(item)
    if dtype is None:
        raise SessionError(
            f"input '{item.name}' has type {item.type}, which cannot be fed from numpy; "
            "such a model can be converted without calibration (--format packed), not run here"
        )
    return InputSpec(item.name, np.dtype(dtype), tuple(item.shape))


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
