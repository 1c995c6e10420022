"""What a model trained with quantization brings along: kept number by number, and taken out of the graph."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import graph, in_memory, model, node, op_types, run, run_reference, value
from onnx import numpy_helper

from onnxq.model import load
from onnxq.qdq.trained import TrainedWeight, lift_trained
from onnxq.scheme import Scheme

DIGITS = Path(__file__).parents[2] / "data" / "fake_quantized_digits.onnx"


def stored(name: str) -> np.ndarray:
    (found,) = (item for item in onnx.load(DIGITS).graph.initializer if item.name == name)
    return numpy_helper.to_array(found)


def test_a_float_model_is_returned_as_it_is():
    proto = model(graph([node("Relu", ["x"], ["y"])], [value("x", [2])], [value("y", [2])]))
    source = in_memory(proto)
    lifted, trained = lift_trained(source)
    assert lifted is source
    assert not trained


def test_every_range_and_every_weight_is_kept():
    lifted, trained = lift_trained(load(DIGITS))
    assert op_types(lifted.ir) == ["Conv", "Relu", "Conv", "Relu", "Flatten", "Gemm"]
    assert set(trained.ranges) == {"digits", "relu0_out", "relu1_out"}
    kept = trained.ranges["relu0_out"]
    assert (str(kept.format), kept.zero_point) == ("uint8", 0)
    assert kept.scale == stored("relu0_out_scale")
    assert trained.weights["conv1.weight"].scales == tuple(map(float, stored("conv1.weight_scale")))


@pytest.mark.parametrize("name", ["conv0.weight", "conv1.weight", "fc.weight"])
def test_quantizing_again_gives_the_same_codes(name):
    lifted, trained = lift_trained(load(DIGITS))
    weight = lifted.ir.graph.initializers[name].const_value.numpy()
    flat = weight.reshape(len(weight), -1).T  # [K, N]
    found = trained.weight(f"{name}_transposed")
    assert found is trained.weights[name]
    assert found.reproduces(flat)
    codes = found.quantize(flat, Scheme(8, True, "per_axis", scale_type="FLOAT")).codes
    np.testing.assert_array_equal(codes.T.reshape(weight.shape), stored(f"{name}_codes"))


def test_a_weight_that_lies_on_no_grid_is_not_reproduced():
    given = TrainedWeight((0.1, 0.2), (0, 0))
    on_grid = np.float32([[0.1, -0.2], [12.7, 25.4]])
    assert given.reproduces(on_grid)
    assert not given.reproduces(on_grid * np.float32(1.001))
    assert not given.reproduces(np.float32([[12.9, 0.2]]))  # code 129
    assert not given.reproduces(np.float32([[0.1, 0.2, 0.3]]))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_types_of_either_sign_become_one(dtype):
    low = np.iinfo(dtype).min
    weights = {"s": np.float32(0.5), "z": dtype(low + 40), "W": np.eye(4, dtype=np.float32)}
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        node("MatMul", ["d", "W"], ["y"]),
    ]
    _, trained = lift_trained(in_memory(model(graph(nodes, [value("x", [2, 4])], [value("y", [2, 4])], weights))))
    for signed in (False, True):
        kept = trained.ranges["x"].in_type(signed=signed)
        assert kept.zero_point - kept.format.qmin == 40
        assert kept.scale == 0.5


def test_a_quantized_constant_becomes_what_it_computes():
    weights = {
        "W": np.float32([[0.26, -3.0], [9.0, 0.1]]),
        "s": np.float32([0.5, 0.05]),
        "z": np.int8([0, 3]),
    }
    nodes = [
        node("QuantizeLinear", ["W", "s", "z"], ["q"], axis=1),
        node("DequantizeLinear", ["q", "s", "z"], ["d"], axis=1),
        node("MatMul", ["x", "d"], ["y"]),
    ]
    proto = model(graph(nodes, [value("x", [2, 2])], [value("y", [2, 2])], weights))
    lifted, trained = lift_trained(in_memory(proto))
    assert op_types(lifted.ir) == ["MatMul"]
    assert trained.weights["d"].zero_points == (0, 3)
    feed = {"x": np.float32([[1, 2], [3, -1]])}
    np.testing.assert_allclose(run(lifted.ir, feed)[0], run_reference(proto, feed)[0], rtol=1e-6)


def test_a_model_output_keeps_its_name():
    weights = {"s": np.float32(0.5), "z": np.uint8(0)}
    nodes = [
        node("Relu", ["x"], ["r"]),
        node("QuantizeLinear", ["r", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    lifted, trained = lift_trained(in_memory(model(graph(nodes, [value("x", [2])], [value("y", [2])], weights))))
    assert op_types(lifted.ir) == ["Relu"]
    assert [item.name for item in lifted.ir.graph.outputs] == ["y"]
    assert set(trained.ranges) == {"y"}
