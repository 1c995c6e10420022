"""The library itself: an onnxruntime session -> custom op -> our host code -> emulated driver -> the real PTX.

Without a GPU there is no CUDA provider, so a test build registers the CUDA kernels on the CPU provider. What
that leaves unproved is kernels/gpu_check.sh's business.
"""

import os
import subprocess
import sys

import numpy as np
import onnx
import packed_nodes
import planes
import pytest
from emulation import build
from onnx import TensorProto, helper, numpy_helper

MODULES = tuple(build.Variant(*v) for v in (("half", 4), ("half", 8), ("float", 4), ("half", 3), ("half", 4, True)))
HIDDEN, KEYS, INNER = 576, 192, 1536  # SmolLM2-135M


@pytest.fixture(scope="module")
def emulated_library():
    return str(build.library(MODULES, emulated=True))


@pytest.fixture(scope="module")
def environment():
    """For processes whose onnxruntime session uses the emulated driver."""
    return os.environ | {
        "ONNXQ_CUDA_DRIVER": str(build.emulated_driver()),
        "ONNXQ_EMULATED_KERNELS": str(build.kernel_folder(MODULES)),
        "ONNXQ_EMULATED_HOST_MEMORY": "1",  # activations are onnxruntime's own buffers
    }


RUN = """
import sys, numpy as np, onnxruntime as ort
model, library, feeds, out = sys.argv[1:5]
options = ort.SessionOptions(); options.log_severity_level = 3; options.register_custom_ops_library(library)
session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
np.savez(out, *session.run(None, dict(np.load(feeds))))
"""


def run(tmp_path, model: bytes | str, library: str, feeds: dict, environment=None) -> list[np.ndarray]:
    path = tmp_path / "model.onnx" if isinstance(model, bytes) else model
    if isinstance(model, bytes):
        path.write_bytes(model)
    np.savez(tmp_path / "feeds.npz", **feeds)
    command = [sys.executable, "-c", RUN, path, library, tmp_path / "feeds.npz", tmp_path / "out.npz"]
    done = subprocess.run([str(c) for c in command], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(tmp_path / "out.npz") as outputs:
        return [outputs[k] for k in outputs.files]


def layer() -> onnx.ModelProto:
    """The seven products of a SmolLM2-135M decoder layer, fp16, joined so that all reach an output."""
    rng = np.random.default_rng(0)
    weights = {"q": (HIDDEN, HIDDEN), "k": (HIDDEN, KEYS), "v": (HIDDEN, KEYS), "o": (HIDDEN, HIDDEN),
               "gate": (HIDDEN, INNER), "up": (HIDDEN, INNER), "down": (INNER, HIDDEN)}  # fmt: skip
    tensors = [
        numpy_helper.from_array((rng.standard_normal(s) / s[0] ** 0.5).astype(np.float16), name)
        for name, s in weights.items()
    ]
    product = lambda a, w: helper.make_node("MatMul", [a, w], [f"{w}_out"], name=f"/layer/{w}")  # noqa: E731
    nodes = [
        product("x", "q"), product("x", "k"), product("x", "v"), product("q_out", "o"),
        helper.make_node("Add", ["x", "o_out"], ["h"]),
        product("h", "gate"), product("h", "up"),
        helper.make_node("Sigmoid", ["gate_out"], ["s"]),
        helper.make_node("Mul", ["gate_out", "s"], ["silu"]),
        helper.make_node("Mul", ["silu", "up_out"], ["inner"]),
        product("inner", "down"),
        helper.make_node("Add", ["h", "down_out"], ["y"]),
    ]  # fmt: skip
    value = lambda name, width: helper.make_tensor_value_info(name, TensorProto.FLOAT16, ["b", "t", width])  # noqa: E731
    graph = helper.make_graph(
        nodes, "layer", [value("x", HIDDEN)], [value("y", HIDDEN), value("k_out", KEYS), value("v_out", KEYS)], tensors
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize("tokens", [3, 17])
def test_a_converted_layer_matches_the_cpu_kernels(emulated_library, environment, library, tmp_path, tokens):
    onnxq = pytest.importorskip("onnxq")
    onnx.save(layer(), tmp_path / "layer.onnx")
    onnxq.convert(tmp_path / "layer.onnx", tmp_path / "packed.onnx", bits=4, block_size=32, compute="float")
    x = np.random.default_rng(1).standard_normal((1, tokens, HIDDEN)).astype(np.float16)
    emulated = run(tmp_path, str(tmp_path / "packed.onnx"), emulated_library, {"x": x}, environment)
    cpu = run(tmp_path, str(tmp_path / "packed.onnx"), library, {"x": x})
    for a, b in zip(emulated, cpu, strict=True):
        # Both accumulate in float32 and round to fp16 after each of at most four operations in a row.
        scale = np.abs(b.astype(np.float64)).max()
        assert np.abs(a.astype(np.float64) - b).max() <= 8 * 2.0**-11 * scale


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("zero_points", [False, True])
@pytest.mark.parametrize(("bits", "a"), [(4, "FLOAT16"), (8, "FLOAT16"), (4, "FLOAT")])
def test_every_matmul_signature(emulated_library, environment, tmp_path, transposed, zero_points, bits, a):
    rng = np.random.default_rng(2)
    weight = packed_nodes.random_weight(rng, 200, 48, bits=bits, zero_points=zero_points)
    model = packed_nodes.matmul_model(weight, transposed=transposed, a=getattr(TensorProto, a), rank=3)
    dtype = np.float16 if a == "FLOAT16" else np.float32
    x = rng.standard_normal((2, 3, 200)).astype(dtype)
    (y,) = run(tmp_path, model, emulated_library, {"A": x}, environment)
    exact = x.astype(np.float64) @ weight.dequantized()
    magnitude = np.abs(x.astype(np.float64)) @ np.abs(weight.dequantized())
    assert np.all(np.abs(y - exact) <= (2.0**-11 if a == "FLOAT16" else 2.0**-23) * magnitude + 2.0**-24)


def codebook_weight(k: int, n: int, *, dim=1) -> planes.PlaneWeight:
    rng = np.random.default_rng(5)
    return planes.PlaneWeight(
        codes=rng.integers(0, 16, (k // dim, n), dtype=np.uint8),
        scales=rng.uniform(0.25, 1, (-(-k // 32), n)).astype(np.float16), zero_points=None,
        codebook=rng.standard_normal((16, dim)).astype(np.float16), bits=4, block=32,
    )  # fmt: skip


@pytest.mark.parametrize("tokens", [2, 12])
def test_a_codebook_node(emulated_library, environment, tmp_path, tokens):
    weight = codebook_weight(200, 48)
    x = np.random.default_rng(6).standard_normal((tokens, 200)).astype(np.float16)
    (y,) = run(tmp_path, planes.plane_model(weight, a=TensorProto.FLOAT16), emulated_library, {"A": x}, environment)
    magnitude = np.abs(x.astype(np.float64)) @ np.abs(weight.dequantized())
    assert np.all(np.abs(y - x.astype(np.float64) @ weight.dequantized()) <= 2.0**-11 * magnitude + 2.0**-24)


def test_a_codebook_of_vectors_is_refused(emulated_library, environment, tmp_path):
    model = planes.plane_model(codebook_weight(64, 16, dim=2), a=TensorProto.FLOAT16)
    with pytest.raises(AssertionError, match=r"'/fc': codebook has shape .16, 2.: CUDA kernels look up scalars"):
        run(tmp_path, model, emulated_library, {"A": np.zeros((1, 64), np.float16)}, environment)


def test_errors_name_the_node(emulated_library, environment, tmp_path):
    weight = packed_nodes.random_weight(np.random.default_rng(3), 64, 16, bits=2)
    with pytest.raises(AssertionError, match=r"onnxq PackedMatMul '/fc': this build has no CUDA kernels for half_2"):
        run(tmp_path, packed_nodes.matmul_model(weight, a=TensorProto.FLOAT16), emulated_library,
            {"A": np.zeros((1, 64), np.float16)}, environment)  # fmt: skip


def test_a_missing_driver_is_explained(emulated_library, tmp_path):
    """What a CUDA session says on a machine without a driver; only the provider's name differs."""
    if "onnxq_cuda_driver" in {k.lower() for k in os.environ}:
        pytest.skip("ONNXQ_CUDA_DRIVER is set")
    weight = packed_nodes.random_weight(np.random.default_rng(3), 64, 16)
    with pytest.raises(AssertionError, match=r"'/fc': no CUDA driver: libcuda\.so\.1.*install the NVIDIA driver"):
        run(tmp_path, packed_nodes.matmul_model(weight, a=TensorProto.FLOAT16), emulated_library,
            {"A": np.zeros((1, 64), np.float16)})  # fmt: skip


def test_the_real_library_serves_the_cpu_without_a_driver(tmp_path):
    real = build.library((build.Variant("half", 4),), emulated=False)
    needed = subprocess.run(["readelf", "-d", str(real)], capture_output=True, text=True, check=True).stdout
    assert "libcuda" not in needed
    assert "libcudart" not in needed
    rng = np.random.default_rng(4)
    weight = packed_nodes.random_weight(rng, 128, 32)
    x = rng.standard_normal((2, 128)).astype(np.float32)
    (y,) = run(tmp_path, packed_nodes.matmul_model(weight, compute="float"), str(real), {"A": x})
    assert np.allclose(y, x @ weight.dequantized(), rtol=1e-5, atol=1e-5)


def test_only_test_builds_can_be_told_to_load_another_driver():
    real = build.library((build.Variant("half", 4),), emulated=False)
    assert b"ONNXQ_CUDA_DRIVER" not in real.read_bytes()
