"""What kernels/gpu_check.sh runs where there is a GPU: correctness, placement, graph capture and timings, as one JSON.

    python kernels/testing/gpu_check.py build             compiles what `correctness` needs, so that it only measures
    python kernels/testing/gpu_check.py correctness       products of every kernel against float64; on the emulator
                                                          unless ONNXQ_TEST_ARCHITECTURE names a compute capability
    python kernels/testing/gpu_check.py sanitizer         the few of them that reach every kernel and every ragged edge:
                                                          under compute-sanitizer each launch takes long
    python kernels/testing/gpu_check.py session OUT.json  placement, graph capture, timings through onnxruntime

Timings are medians of CUDA-graph-free runs with I/O bound to the device. The bandwidth floor is the time in which the
card copies as many bytes as a product has to read and write, measured beside it.

Blocks of 32 are what peers publish. onnxruntime's fpA_intB kernels take blocks of 64 and 128 with zero points only and
anything else silently falls back to the default, so that comparison is made at 128 with zero points, for ours too.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import sys
import tempfile
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
KERNELS = (("decode", 5), ("mid", 33), ("wide", 130), ("auto", 17))
PRODUCTS = ((256, 64, 16), (328, 137, 32), (203, 50, 64), (4232, 48, 128), (1160, 96, 256))
"""K, N, block size: even, ragged in K and N, K a multiple of nothing, deep, wide blocks."""


def correctness(*, few: bool = False) -> dict:
    """Every variant and kernel on ragged shapes, on the GPU of ONNXQ_TEST_ARCHITECTURE or, without it, emulated."""
    import emulation

    import build

    failures, count = [], 0
    variants = build.all_variants()
    chosen = variants if emulation.on_hardware() else variants[2:3]
    for variant in chosen[::4] if few else chosen:
        for k, n, block in PRODUCTS[1:3] if few else PRODUCTS:
            for zero_points in (False, True)[: 1 if variant.codebook else 2]:
                settings = {"element": variant.element, "bits": variant.bits, "block": block,
                            "zero_points": zero_points, "transposed": zero_points != (n % 2 == 0)}  # fmt: skip
                for kernel, m in KERNELS:
                    product = emulation.make_product(m, k, n, **settings)
                    if variant.codebook:
                        values = np.random.default_rng(0).standard_normal(1 << variant.bits).astype(np.float32)
                        product = emulation.with_codebook(product, values)
                    result = emulation.Emulator().run(product, kernel=kernel)
                    worst = float(np.max(np.abs(result.astype(np.float64) - product.exact()) / product.bound()))
                    count += 1
                    if not worst <= 1:
                        failures.append(f"{variant.name} {kernel} {m}x{k}x{n} block {block}: {worst:.3g} of the bound")
                if variant.codebook:  # there is no gather of one
                    continue
                table = emulation.make_product(1, k, n, **settings | {"transposed": True})
                indices = np.array([0, n - 1, -1, -n, n // 2], np.int64)
                rows = emulation.Emulator().gather(table, indices)
                count += 1
                if not np.array_equal(rows, table.weight().T[indices].astype(np.float32).astype(rows.dtype)):
                    failures.append(f"{variant.name} gather {k}x{n} block {block}: not exact")
    return {"products": count, "failures": failures}


def build_harness() -> dict:
    """The library's host code and, with ONNXQ_TEST_ARCHITECTURE, its kernels for that compute capability."""
    import build

    return {"harness": build.harness().name, "failures": []}


def model(k: int, n: int, kind: str, *, block: int = 32, zero_points: bool = False) -> bytes:
    """One product in fp16 with the same weight in each kind: packed (ours), matmulnbits (4 bits) or float."""
    import onnx
    import packed_nodes
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weight = packed_nodes.random_weight(rng, k, n, bits=4, block=block, zero_points=zero_points)
    if kind == "packed":
        return packed_nodes.matmul_model(weight, a=TensorProto.FLOAT16)
    if kind == "float":
        tensors = [numpy_helper.from_array(weight.dequantized().astype(np.float16), "W")]
        node = helper.make_node("MatMul", ["A", "W"], ["Y"], name="/fc")
    else:
        nibbles = lambda values: (values[..., ::2] | values[..., 1::2] << 4).astype(np.uint8)  # noqa: E731
        codes = weight.codes.T + (0 if zero_points else 8)
        tensors = [numpy_helper.from_array(nibbles(codes.reshape(n, k // block, block)), "B"),
                   numpy_helper.from_array(np.ascontiguousarray(weight.scales.T).ravel(), "scales")]  # fmt: skip
        if zero_points:
            tensors.append(numpy_helper.from_array(nibbles(weight.zero_points.T).ravel(), "zero_points"))
        node = helper.make_node("MatMulNBits", ["A", *(t.name for t in tensors)], ["Y"], name="/fc",
                                domain="com.microsoft", K=k, N=n, bits=4, block_size=block)  # fmt: skip
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
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(model(256, 64, "packed"), library, profile=f"{folder}/gpu_check")
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


CONTENDERS = {
    "packed_32": ("packed", 32, False), "matmulnbits_32": ("matmulnbits", 32, False),
    "packed_128": ("packed", 128, False), "matmulnbits_128": ("matmulnbits", 128, False),
    "fpa_intb_128": ("matmulnbits", 128, True), "fp16": ("float", 32, False),
}  # fmt: skip
"""Kind, block size (128: with zero points), and whether fpA_intB is switched on."""


def timings(library: str, seconds: float, bytes_per_us: float) -> list[dict]:
    """Ours against MatMulNBits (default and fpA_intB), fp16 cuBLAS and the floor, until the time is up."""
    end, rows = time.monotonic() + seconds, []
    for k, n in SHAPES:
        sessions = {
            name: open_session(model(k, n, kind, block=block, zero_points=block == 128),
                               library if kind == "packed" else None, fpa_intb=intb)
            for name, (kind, block, intb) in CONTENDERS.items()
        }  # fmt: skip
        for m in TOKENS:
            if time.monotonic() > end:
                return rows
            times = {name: median_microseconds(s, m, k, n) for name, s in sessions.items()}
            floors = {f"floor_{b}": product_bytes(m, k, n, b) / bytes_per_us for b in (32, 128)}
            rows.append({"k": k, "n": n, "m": m, **times, **floors})
    return rows


def product_bytes(m: int, k: int, n: int, block: int) -> float:
    """4-bit weights, fp16 scales, zero points at blocks of 128, fp16 activations and output: each once."""
    return k * n / 2 + k / block * n * (2.5 if block == 128 else 2) + 2 * m * (k + n)


def copy_bytes_per_us(megabytes: int = 512, copies: int = 20) -> float:
    """What the card moves, reads and writes counted, when it copies device memory to device memory."""
    cuda = ctypes.CDLL("libcuda.so.1")
    context, buffers = ctypes.c_void_p(), [ctypes.c_uint64(), ctypes.c_uint64()]
    size = ctypes.c_size_t(megabytes << 20)
    checked = lambda code: None if code == 0 else sys.exit(f"gpu_check: the CUDA driver returned {code}")  # noqa: E731
    checked(cuda.cuInit(0))
    checked(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0))
    checked(cuda.cuCtxSetCurrent(context))
    for buffer in buffers:
        checked(cuda.cuMemAlloc_v2(ctypes.byref(buffer), size))
    best = float("inf")
    for _ in range(3):
        checked(cuda.cuCtxSynchronize())
        start = time.perf_counter()
        for _ in range(copies):
            checked(cuda.cuMemcpyDtoDAsync_v2(buffers[0], buffers[1], size, None))
        checked(cuda.cuCtxSynchronize())
        best = min(best, time.perf_counter() - start)
    for buffer in buffers:
        checked(cuda.cuMemFree_v2(buffer))
    return 2 * copies * size.value / (best * 1e6)


def device_info() -> dict:
    """Name, multiprocessors and capability from the driver."""
    cuda = ctypes.CDLL("libcuda.so.1")
    name, values = ctypes.create_string_buffer(100), {}
    cuda.cuInit(0)
    cuda.cuDeviceGetName(name, 100, 0)
    for key, attribute in (("multiprocessors", 16), ("major", 75), ("minor", 76)):
        value = ctypes.c_int()
        cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, 0)
        values[key] = value.value
    return {"name": name.value.decode(), **values}


def session_checks(library: str, seconds: float) -> dict:
    import onnxruntime

    bytes_per_us = copy_bytes_per_us()
    return {
        "measured_on_hardware": True, "onnxruntime": onnxruntime.__version__, "device": device_info(),
        "placement": placement(library), "graph_capture": graph_capture(library),
        "copy_bytes_per_us": bytes_per_us, "timings_us": timings(library, seconds, bytes_per_us),
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("check", choices=("build", "correctness", "sanitizer", "session"))
    parser.add_argument("output", nargs="?", default="-")
    parser.add_argument("--library", default=os.environ.get("ONNXQ_TEST_LIBRARY"))
    parser.add_argument("--seconds", type=float, default=120)
    arguments = parser.parse_args()
    if arguments.check == "session":
        result = session_checks(arguments.library, arguments.seconds)
        failed = not (result["placement"]["passed"] and result["graph_capture"]["passed"])
    else:
        few = arguments.check == "sanitizer"
        result = build_harness() if arguments.check == "build" else correctness(few=few)
        failed = bool(result["failures"])
    text = json.dumps(result, indent=1) + "\n"
    print(text) if arguments.output == "-" else Path(arguments.output).write_text(text)
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
