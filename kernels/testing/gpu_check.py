"""What kernels/gpu_check.sh runs where there is a GPU: correctness, placement, graph capture and timings, as one JSON.

    python kernels/testing/gpu_check.py correctness       products of every kernel against float64; on the emulator
                                                          unless ONNXQ_TEST_ARCHITECTURE names a compute capability
    python kernels/testing/gpu_check.py session OUT.json  placement, graph capture, timings through onnxruntime

Timings are the medians of CUDA-graph-free runs with I/O bound to the device. The bandwidth floor is the packed bytes
over the card's peak bandwidth as the driver reports it.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [
    str(ROOT / "tests" / "kernels" / "cuda"),
    str(ROOT / "tests" / "kernels"),
    str(ROOT / "kernels" / "testing"),
]
SHAPES = ((4096, 4096), (4096, 12288), (12288, 4096))
TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 512)


def correctness() -> dict:
    """Every variant and kernel on ragged shapes, on the GPU of ONNXQ_TEST_ARCHITECTURE or, without it, emulated."""
    import emulation

    import build

    failures, count = [], 0
    variants = build.all_variants()
    for variant in variants if emulation.on_hardware() else variants[2:3]:
        for kernel, m in (("decode", 5), ("mid", 33), ("wide", 130)):
            for k, n, block in ((256, 64, 16), (328, 137, 32), (203, 50, 64), (4232, 48, 128), (1160, 96, 256)):
                for zero_points in (False, True):
                    product = emulation.make_product(
                        m, k, n, element=variant.element, bits=variant.bits, block=block, zero_points=zero_points
                    )
                    result = emulation.Emulator().run(product, kernel=kernel)
                    worst = float(np.max(np.abs(result.astype(np.float64) - product.exact()) / product.bound()))
                    count += 1
                    if not worst <= 1:
                        failures.append(f"{variant.name} {kernel} {m}x{k}x{n} block {block}: {worst:.3g} of the bound")
    return {"products": count, "failures": failures}


def model(k: int, n: int, kind: str) -> bytes:
    """One product in fp16: packed (ours), matmulnbits (default settings) or float."""
    import onnx
    import packed_nodes
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weight = packed_nodes.random_weight(rng, k, n, bits=4, block=32)
    if kind == "packed":
        return packed_nodes.matmul_model(weight, a=TensorProto.FLOAT16)
    if kind == "float":
        tensors = [numpy_helper.from_array(weight.dequantized().astype(np.float16), "W")]
        node = helper.make_node("MatMul", ["A", "W"], ["Y"], name="/fc")
    else:
        codes = (weight.codes.T + 8).astype(np.uint8).reshape(n, k // 32, 32)
        tensors = [numpy_helper.from_array(codes[..., ::2] | codes[..., 1::2] << 4, "B"),
                   numpy_helper.from_array(np.ascontiguousarray(weight.scales.T).ravel(), "scales")]  # fmt: skip
        node = helper.make_node("MatMulNBits", ["A", "B", "scales"], ["Y"], name="/fc", domain="com.microsoft",
                                K=k, N=n, bits=4, block_size=32)  # fmt: skip
    value = lambda name, width: helper.make_tensor_value_info(name, TensorProto.FLOAT16, ["m", width])  # noqa: E731
    graph = helper.make_graph([node], "one", [value("A", k)], [value("Y", n)], tensors)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def open_session(content: bytes, library: str | None, *, graph_capture=False, fpa_intb=False, profile=None):
    import onnxruntime as ort

    options = ort.SessionOptions()
    if library:
        options.register_custom_ops_library(library)
    if profile:
        options.enable_profiling = True
        options.profile_file_prefix = profile
    os.environ["ORT_FPA_INTB_GEMM"] = "1" if fpa_intb else "0"
    provider = ("CUDAExecutionProvider", {"enable_cuda_graph": "1"} if graph_capture else {})
    return ort.InferenceSession(content, options, providers=[provider, "CPUExecutionProvider"])


def bound_io(session, a: np.ndarray, n: int):
    import onnxruntime as ort

    binding = session.io_binding()
    device = ort.OrtValue.ortvalue_from_numpy(a, "cuda", 0)
    output = ort.OrtValue.ortvalue_from_shape_and_type([a.shape[0], n], np.float16, "cuda", 0)
    binding.bind_ortvalue_input("A", device)
    binding.bind_ortvalue_output("Y", output)
    return binding, device, output


def median_microseconds(session, m: int, k: int, n: int, *, runs=200) -> float:
    a = np.random.default_rng(1).standard_normal((m, k)).astype(np.float16)
    binding, _, _ = bound_io(session, a, n)
    times = []
    for i in range(runs + 20):
        start = time.perf_counter()
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        if i >= 20:
            times.append(time.perf_counter() - start)
    return float(np.median(times) * 1e6)


def placement(library: str) -> dict:
    """The provider that really ran the node, from onnxruntime's profile."""
    session = open_session(model(256, 64, "packed"), library, profile="gpu_check")
    session.run(None, {"A": np.zeros((4, 256), np.float16)})
    events = json.loads(Path(session.end_profiling()).read_text())
    ran = {e["args"]["provider"] for e in events if e.get("args", {}).get("op_name", "").startswith("PackedMatMul")}
    return {"providers": sorted(ran), "passed": ran == {"CUDAExecutionProvider"}}


def graph_capture(library: str) -> dict:
    """Captured and replayed with new inputs, against float64."""
    import packed_nodes

    weight = packed_nodes.random_weight(np.random.default_rng(0), 256, 64, bits=4, block=32)
    session = open_session(model(256, 64, "packed"), library, graph_capture=True)
    rng, worst = np.random.default_rng(2), 0.0
    a = rng.standard_normal((4, 256)).astype(np.float16)
    binding, device, output = bound_io(session, a, 64)
    for _ in range(3):  # the first run captures, the others replay
        session.run_with_iobinding(binding)
        exact = a.astype(np.float64) @ weight.dequantized()
        worst = max(worst, float(np.abs(output.numpy() - exact).max() / np.abs(exact).max()))
        a = rng.standard_normal((4, 256)).astype(np.float16)
        device.update_inplace(a)
    return {"worst": worst, "passed": worst < 2e-3}


def timings(library: str, seconds: float) -> list[dict]:
    """Ours against MatMulNBits (default and fpA_intB) and fp16 cuBLAS, until the time is up."""
    end, rows = time.monotonic() + seconds, []
    for k, n in SHAPES:
        kinds = {"packed": ("packed", library, False), "matmulnbits": ("matmulnbits", None, False),
                 "matmulnbits_fpa_intb": ("matmulnbits", None, True), "fp16": ("float", None, False)}  # fmt: skip
        sessions = {
            name: open_session(model(k, n, kind), lib, fpa_intb=intb) for name, (kind, lib, intb) in kinds.items()
        }
        for m in TOKENS:
            if time.monotonic() > end:
                return rows
            times = {name: median_microseconds(s, m, k, n) for name, s in sessions.items()}
            rows.append({"k": k, "n": n, "m": m, "packed_bytes": k * n // 2 + k * n // 32 * 2, **times})
    return rows


def device_info() -> dict:
    """Name, capability and peak bandwidth from the driver."""
    cuda = ctypes.CDLL("libcuda.so.1")
    name, values = ctypes.create_string_buffer(100), {}
    cuda.cuInit(0)
    cuda.cuDeviceGetName(name, 100, 0)
    for key, attribute in (("sm", 16), ("major", 75), ("minor", 76), ("memory_khz", 36), ("bus_bits", 37)):
        value = ctypes.c_int()
        cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, 0)
        values[key] = value.value
    return {"name": name.value.decode(), **values}


def session_checks(library: str, seconds: float) -> dict:
    import onnxruntime

    return {
        "measured_on_hardware": True, "onnxruntime": onnxruntime.__version__, "device": device_info(),
        "placement": placement(library), "graph_capture": graph_capture(library),
        "timings_us": timings(library, seconds),
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("check", choices=("correctness", "session"))
    parser.add_argument("output", nargs="?", default="-")
    parser.add_argument("--library", default=os.environ.get("ONNXQ_TEST_LIBRARY"))
    parser.add_argument("--seconds", type=float, default=240)
    arguments = parser.parse_args()
    if arguments.check == "correctness":
        result = correctness()
        failed = bool(result["failures"])
    else:
        result = session_checks(arguments.library, arguments.seconds)
        failed = not (result["placement"]["passed"] and result["graph_capture"]["passed"])
    text = json.dumps(result, indent=1) + "\n"
    print(text) if arguments.output == "-" else Path(arguments.output).write_text(text)
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
