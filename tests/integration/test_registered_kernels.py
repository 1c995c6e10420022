"""What the rewriter can emit for the CPU against what the library registers: with the library there is no way back
to the function body, so a signature that is missing would be a model that does not load."""

import ctypes
from dataclasses import replace
from itertools import product

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graphs import ONNX_BITS, graph, model, node, op_types, relative_error, run, value
from stages import quantize

import onnxq
from onnxq import kernels, ops
from onnxq.session import CUDA_PROVIDER, SessionOptions, node_providers, optimised_graph

CPU_FLOATS = (np.float32, np.float16)
"""onnxruntime's CPU provider has no bfloat16 MatMul at all, so bfloat16 models do not load there either way."""

ONNX_NAME = {"FLOAT": "float", "FLOAT16": "float16"}


def registered() -> set[str]:
    """Signatures such as `PackedMatMul(float, int4, float16) -> float`."""
    library = ctypes.CDLL(str(onnxq.library_path()))
    library.onnxq_signatures.restype = ctypes.c_char_p
    return set(library.onnxq_signatures().decode().splitlines())


def every_kind_of_site(dtype, indices) -> onnx.ModelProto:
    """A table, the head tied to it, and a matmul."""
    rng = np.random.default_rng(0)
    k, rows = 64, 20
    return model(
        graph(
            [
                node("Gather", ["table", "ids"], ["H"], name="embed"),
                node("MatMul", ["H", "W"], ["P"], name="fc"),
                node("Transpose", ["table"], ["head"], perm=[1, 0]),
                node("MatMul", ["P", "head"], ["Y"], name="head"),
            ],
            [value("ids", ["M"], indices)],
            [value("Y", ["M", rows], dtype)],
            {
                "table": rng.standard_normal((rows, k)).astype(dtype),
                "W": (rng.standard_normal((k, k)) / 8).astype(dtype),
            },
        )
    )


def emitted(quantized: ir.Model, activation: str, indices: str) -> set[str]:
    """Signatures of the packed nodes of a model."""
    found = set()
    for item in quantized.graph:
        if item.domain != ops.DOMAIN:
            continue
        types = [value.const_value.dtype.name.lower() if value.const_value else None for value in item.inputs]
        types[types.index(None)] = indices if "Gather" in item.op_type else activation
        names = ", ".join(ONNX_NAME.get(name.upper(), name) for name in types)
        found.add(f"{item.op_type}({names}) -> {activation}")
    return found


CASES = list(product(ONNX_BITS, (True, False), CPU_FLOATS, (np.int64, np.int32)))


@pytest.mark.parametrize(("bits", "symmetric", "dtype", "indices"), CASES)
def test_everything_that_can_be_emitted_is_registered_and_runs(registry, bits, symmetric, dtype, indices):
    """The graph runs and agrees with the function bodies: the head's int8 activations cost at most a few percent."""
    float_model = every_kind_of_site(dtype, indices)
    wishes = {"bits": bits, "table_bits": bits, "symmetric": symmetric}
    quantized = quantize(float_model, registry, **wishes).model.ir
    activation = {np.float32: "float", np.float16: "float16"}[dtype]
    signatures = emitted(quantized, activation, np.dtype(indices).name)
    assert len(signatures) == 3, op_types(quantized)
    assert signatures <= registered()
    feeds = {"ids": np.array([0, 7, 19], indices)}
    (ours,) = run(quantized, feeds, library=True)
    (body,) = run(quantized, feeds, optimise=False)
    assert ours.dtype == dtype
    assert relative_error(ours, body) < 0.03


def test_the_list_is_not_empty_and_has_teeth():
    """A signature nobody emits must not be found, or `registered` would prove nothing."""
    assert "PackedMatMul(float, int4, float16) -> float" in registered()
    assert "PackedMatMul(float, uint4, float16) -> float" not in registered()


PLANE_WISHES = [
    *({"bits": bits, "symmetric": symmetric} for bits in (3, 5, 6) for symmetric in (True, False)),
    {"codebook": "nf4"},
]


@pytest.mark.parametrize("dtype", CPU_FLOATS)
@pytest.mark.parametrize("wishes", PLANE_WISHES, ids=str)
def test_planes_and_codebooks_that_can_be_emitted_are_registered_and_run(registry, wishes, dtype):
    """The same for what has no ONNX type: the matmul is in planes, the table stays at 8 bits."""
    quantized = quantize(every_kind_of_site(dtype, np.int64), registry, **wishes).model.ir
    activation = {np.float32: "float", np.float16: "float16"}[dtype]
    signatures = emitted(quantized, activation, "int64")
    assert any("Bits" in signature or "Codebook" in signature for signature in signatures)
    assert signatures <= registered()
    feeds = {"ids": np.array([0, 7, 19], np.int64)}
    (ours,) = run(quantized, feeds, library=True)
    (body,) = run(quantized, feeds, optimise=False)
    assert relative_error(ours, body) < 0.03


def test_which_provider_runs_a_packed_node_is_read_back(tmp_path, monkeypatch):
    onnx.save(every_kind_of_site(np.float32, np.int64), tmp_path / "float.onnx")
    report = onnxq.convert(tmp_path / "float.onnx", tmp_path / "packed.onnx")
    sites = [site.decision.site for site in report.sites if site.decision.site.node in ("fc", "head")]
    ours = SessionOptions(use_library=True)
    assert node_providers(tmp_path / "packed.onnx", ours)["fc"] == "CPUExecutionProvider"

    # As on a machine with a GPU, where the provider has taken one of the two.
    monkeypatch.setattr(kernels, "optimised_graph", lambda path, options: optimised_graph(path, ours))
    monkeypatch.setattr(kernels, "node_providers", lambda path, options: {"fc": CUDA_PROVIDER, "head": "CPU"})
    found = kernels.kernels_found(tmp_path / "packed.onnx", sites, replace(ours, cuda=True))
    assert found["fc"].endswith("::PackedMatMulZeroPoint on CUDA")
    assert found["head"].endswith("::PackedMatMulTransposed")
