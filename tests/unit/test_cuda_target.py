"""Decisions for CUDA: blocks that its kernels like, nothing on codes, every absence named."""

import ctypes
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import graph, model, node, value
from stages import plan, quantize

from onnxq import session
from onnxq.cuda_target import WHY_CONVOLUTIONS_STAY_FLOAT, block_size_for
from onnxq.errors import RecipeError

RNG = np.random.default_rng(0)
BUDGETS = Path(__file__).resolve().parents[2] / "kernels/cuda/budgets.json"


def products(dtype=np.float32) -> onnx.ModelProto:
    """Three products in a row, K = 192, 256, 72, between two convolutions."""
    draw = lambda *shape: (RNG.standard_normal(shape) / 8).astype(dtype)  # noqa: E731
    nodes = [
        node("Conv", ["x", "F"], ["c"], name="conv"),
        node("MatMul", ["c", "A"], ["a"], name="fc192"),
        node("MatMul", ["a", "B"], ["b"], name="fc256"),
        node("MatMul", ["b", "C"], ["y"], name="fc72"),
    ]
    weights = {"F": draw(16, 16, 3, 3), "A": draw(192, 256), "B": draw(256, 72), "C": draw(72, 64)}
    return model(graph(nodes, [value("x", [1, 16, 6, 194], dtype)], [value("y", [None] * 4, dtype)], weights))


def blocks(registry, **wishes) -> dict[str, str]:
    made = plan(products(), registry, target="cuda", **wishes)
    return {decision.site.node: str(decision.scheme) for decision in made.decisions}


@pytest.mark.parametrize(("k", "size"), [(384, 128), (576, 64), (1536, 128), (96, 32), (72, 32), (48, 32), (7, 32)])
def test_the_cheapest_block_that_divides_k(k, size):
    assert block_size_for(k) == size


def test_the_order_of_liked_blocks_is_that_of_the_recorded_machine_code():
    budgets = json.loads(BUDGETS.read_text(encoding="utf8"))
    speed = {size: budgets[f"half_4_decode_p{size}"]["weights_per_instruction"] for size in (128, 64, 32, 16)}
    assert sorted(speed, key=speed.get, reverse=True) == [128, 64, 32, 16]


def test_blocks_are_chosen_by_site(registry):
    assert blocks(registry) == {"fc192": "uint4 block 64", "fc256": "uint4 block 128", "fc72": "uint4 block 32"}


def test_a_block_size_that_was_asked_for_wins(registry):
    assert set(blocks(registry, block_size=32).values()) == {"uint4 block 32"}
    assert blocks(registry, override=({"nodes": "fc256", "block_size": 16},))["fc256"] == "uint4 block 16"
    assert blocks(registry, override=({"nodes": "fc256", "bits": 8},))["fc256"] == "int8 block 128"


def test_kernels_are_predicted_for_cuda_and_convolutions_say_why_they_stay(registry):
    made = plan(products(), registry, target="cuda")
    assert {decision.kernel for decision in made.decisions} == {"MatMulNBits on CUDA"}
    assert [(skip.node, skip.reason) for skip in made.skips] == [("conv", WHY_CONVOLUTIONS_STAY_FLOAT)]
    assert {decision.kernel for decision in plan(products(), registry).decisions} == {"MatMulNBits"}


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_scales_are_float16_and_activations_the_models_own(registry, dtype):
    graph = quantize(products(dtype), registry, target="cuda").model.ir.graph
    scales = [v for name, v in graph.initializers.items() if name.endswith(".scales")]
    assert {v.dtype.name for v in scales} == {"FLOAT16"}
    assert len(scales) == 3
    assert {v.dtype.numpy() for v in (*graph.inputs, *graph.outputs)} == {np.dtype(dtype)}
    assert not {n.op_type for n in graph} & {"QuantizeLinear", "DequantizeLinear", "Cast"}


def test_what_has_no_cuda_kernel_is_named(registry):
    assert "2-bit weights on CUDA" in plan(products(), registry, target="cuda", bits=2).warnings[-1]
    assert plan(products(), registry, target="cuda").warnings == ()


def test_integer_nodes_are_refused(registry):
    with pytest.raises(RecipeError, match="no integer kernels"):
        plan(products(), registry, target="cuda", format="qdq")


def no_library(name: str):
    raise OSError(f"{name}: cannot open shared object file")


class Driver:
    """A driver that answers, and finds `devices`."""

    def __init__(self, devices: int) -> None:
        self._devices = devices

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return 0

    def cuDeviceGetCount(self, count) -> int:  # noqa: N802
        count._obj.value = self._devices
        return 0


@pytest.mark.parametrize("driver", [no_library, lambda name: Driver(0), lambda name: object()])
def test_no_gpu_is_noticed_without_asking_onnxruntime(monkeypatch, driver):
    monkeypatch.setattr(ctypes, "CDLL", driver)
    monkeypatch.setattr(session, "_onnxruntime", lambda: pytest.fail("onnxruntime would complain on stderr"))
    assert not session.cuda_present()
