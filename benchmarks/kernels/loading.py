"""What loading costs: the repack of a weight against copying its bytes.

Three contenders take turns: a session with our node, a session on the same external file whose nodes leave the
weight alone, and a plain copy of the file, mapped anew, into memory that the process never had. The first less
the second is what loading adds; the third is the least that it can be while weights stay in memory of their own.
"""

import ctypes
import mmap
import statistics
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from .contenders import Problem, Weight


@dataclass(frozen=True)
class Loading:
    """Seconds per GB of packed bytes (codes and scales), medians of the turns."""

    name: str
    packed_bytes: int
    added: float
    copy: float


def measure_loading(problem: Problem, args: Namespace) -> Loading:
    """Loads a weight `args.pairs` times."""
    clock = time.process_time if args.clock == "cpu" else time.perf_counter
    with tempfile.TemporaryDirectory(prefix="onnxq-") as name:
        folder = Path(name)
        model = onnx.load_model_from_string(Weight(problem).ours())
        onnx.save(
            _idle(model), folder / "idle.onnx", save_as_external_data=True, location="idle.data", size_threshold=0
        )
        onnx.save(model, folder / "ours.onnx", save_as_external_data=True, location="ours.data", size_threshold=0)
        turns: list[Callable[[], object]] = [
            lambda: _session(folder / "ours.onnx", args.library),
            lambda: _session(folder / "idle.onnx", args.library),
            lambda: _copy(folder / "ours.data"),
        ]
        times = [[_seconds(clock, turn) for turn in turns] for _ in range(args.pairs)]
        size = (folder / "ours.data").stat().st_size
    gb = size / 1e9
    added = statistics.median(ours - idle for ours, idle, _ in times) / gb
    return Loading(problem.name, size, added, statistics.median(copy for _, _, copy in times) / gb)


def show_loading(loading: Loading) -> None:
    ratio = loading.added / loading.copy
    print(
        f"{loading.name:20} {loading.packed_bytes / 1e6:7.1f} MB  adds {loading.added:6.3f} s/GB  "
        f"copy {loading.copy:6.3f} s/GB  {ratio:5.2f}x",
        flush=True,
    )


def _seconds(clock: Callable[[], float], turn: Callable[[], object]) -> float:
    start = clock()
    kept = turn()
    seconds = clock() - start
    del kept  # releasing it is no part of loading
    return seconds


def _idle(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same weights, of which only the shapes are read."""
    idle = onnx.ModelProto()
    idle.CopyFrom(model)
    names = [tensor.name for tensor in model.graph.initializer]
    del idle.graph.node[:], idle.graph.output[:], idle.graph.input[:]
    for tensor in idle.graph.initializer:  # the same bytes: Shape has no kernel for types below a byte
        tensor.data_type, size = TensorProto.UINT8, len(tensor.raw_data)
        tensor.dims[:] = [size]
    idle.graph.node.extend(helper.make_node("Shape", [name], [f"{name}_shape"]) for name in names)
    idle.graph.output.extend(helper.make_tensor_value_info(f"{name}_shape", TensorProto.INT64, None) for name in names)
    return idle


def _session(path: Path, library: str) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # else the idle weights are folded
    options.register_custom_ops_library(library)
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _copy(path: Path) -> mmap.mmap:
    size = path.stat().st_size
    fresh = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with path.open("rb") as file, mmap.mmap(file.fileno(), size, flags=mmap.MAP_PRIVATE) as source:
        target, origin = ctypes.c_char.from_buffer(fresh), ctypes.c_char.from_buffer(source)
        ctypes.memmove(ctypes.addressof(target), ctypes.addressof(origin), size)
        del target, origin
    return fresh
