"""Integer convolutions with data: rounding by the layer's output error, and no mean error left."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxq
from tests.graphs import run

RNG = np.random.default_rng(8)
FILTERS = {"first": (12, 3, 3, 3), "second": (12, 1, 3, 3), "third": (8, 12, 1, 1)}


@pytest.fixture(scope="module")
def depthwise_net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Conv -> Relu -> depthwise Conv -> Relu -> pointwise Conv without a bias; images around 1."""
    folder = tmp_path_factory.mktemp("depthwise")
    weights = {name: RNG.standard_normal(shape).astype(np.float32) for name, shape in FILTERS.items()}
    weights["first_b"] = weights["second_b"] = RNG.standard_normal(12).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "first", "first_b"], ["a"], name="/first", pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"], name="/relu1"),
        helper.make_node("Conv", ["b", "second", "second_b"], ["c"], name="/second", pads=[1] * 4, group=12),
        helper.make_node("Relu", ["c"], ["d"], name="/relu2"),
        helper.make_node("Conv", ["d", "third"], ["y"], name="/third"),
    ]
    graph = helper.make_graph(
        nodes,
        "depthwise_net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 12, 12])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 8, 12, 12])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), folder / "net.onnx")
    for batch in range(10):
        np.savez(folder / f"{batch}.npz", x=images())
    return folder


def images(count: int = 4) -> np.ndarray:
    """Smooth pictures that are positive on average: neighbours are alike, as in photos."""
    coarse = RNG.standard_normal((count, 3, 4, 4)).repeat(3, axis=2).repeat(3, axis=3)
    return (1 + coarse + 0.3 * RNG.standard_normal((count, 3, 12, 12))).astype(np.float32)


FRESH = images(80)


def convert(folder: Path, name: str, **wishes: object) -> np.ndarray:
    """Error of the output over fresh images, float32 [80, 8, 12, 12]; with activations so fine that weights count."""
    output = folder / f"{name}.onnx"
    onnxq.convert(
        folder / "net.onnx",
        output,
        data=str(folder),
        overwrite=True,
        format="qdq",
        activation_bits=16,
        calibrator="minmax",
        **wishes,
    )
    return np.subtract(run(output, {"x": FRESH})[0], run(folder / "net.onnx", {"x": FRESH})[0])


def test_bias_correction_and_gptq_gain_and_come_with_data(depthwise_net: Path) -> None:
    errors = {
        "neither": convert(depthwise_net, "neither", method="mse", bias_correction=False),
        "bias": convert(depthwise_net, "bias", method="mse"),
        "gptq": convert(depthwise_net, "gptq", bias_correction=False),
        "both": convert(depthwise_net, "both"),
    }
    drift = {name: float(np.square(error.mean(axis=(0, 2, 3))).mean()) for name, error in errors.items()}
    power = {name: float(np.square(error).mean()) for name, error in errors.items()}
    assert drift["bias"] < 0.2 * drift["neither"]
    assert drift["both"] < 0.2 * drift["neither"]
    assert power["gptq"] < power["neither"]
    assert power["both"] < power["neither"]


def test_without_data_nothing_is_corrected_and_weights_are_rounded_by_mse(depthwise_net: Path) -> None:
    output = depthwise_net / "blind.onnx"
    report = onnxq.convert(depthwise_net / "net.onnx", output, format="qdq", overwrite=True)
    assert {site.decision.method for site in report.sites} == {"mse"}
    convolutions = [node for node in onnx.load(output).graph.node if node.op_type == "Conv"]
    assert [len(node.input) for node in convolutions] == [3, 3, 2]
