"""BatchNormalization is folded into Conv, ConvTranspose and Gemm, and left wherever folding would change anything."""

import numpy as np
import onnx
import pytest
from agreement import assert_same
from graphs import graph, model, node, op_types, value

RNG = np.random.default_rng(0)


def statistics(channels: int, dtype=np.float32) -> dict[str, np.ndarray]:
    return {
        "scale": RNG.uniform(0.5, 2, channels).astype(dtype),
        "shift": RNG.standard_normal(channels).astype(dtype),
        "mean": RNG.standard_normal(channels).astype(dtype),
        "var": RNG.uniform(0.5, 2, channels).astype(dtype),
    }


def norm(source: str, target: str = "Y", **attributes) -> onnx.NodeProto:
    return node("BatchNormalization", [source, "scale", "shift", "mean", "var"], [target], **attributes)


def conv_model(op_type: str, shape: tuple[int, ...], *, bias: bool, dtype=np.float32, **attributes) -> onnx.ModelProto:
    group = attributes.get("group", 1)
    transposed = op_type == "ConvTranspose"
    channels_in = shape[0] if transposed else shape[1] * group
    channels_out = shape[1] * group if transposed else shape[0]
    weights = {"W": RNG.standard_normal(shape).astype(dtype), **statistics(channels_out, dtype)}
    if bias:
        weights["b"] = RNG.standard_normal(channels_out).astype(dtype)
    spatial = [5] * (len(shape) - 2)
    return model(
        graph(
            [node(op_type, ["X", "W", *(["b"] if bias else [])], ["H"], name="conv", **attributes), norm("H")],
            [value("X", ["M", channels_in, *spatial], dtype)],
            [value("Y", ["M", channels_out, *[None] * len(spatial)], dtype)],
            weights,
        )
    )


CONVOLUTIONS = {
    "Conv": ("Conv", (6, 4, 3, 3), {}),
    "Conv in groups": ("Conv", (6, 2, 3, 3), {"group": 2}),
    "depthwise Conv": ("Conv", (6, 1, 3, 3), {"group": 6}),
    "Conv 1D": ("Conv", (6, 4, 3), {}),
    "strided Conv": ("Conv", (6, 4, 3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "ConvTranspose": ("ConvTranspose", (4, 6, 3, 3), {}),
    "ConvTranspose in groups": ("ConvTranspose", (4, 3, 3, 3), {"group": 2}),
}


@pytest.mark.parametrize(("op_type", "shape", "attributes"), CONVOLUTIONS.values(), ids=CONVOLUTIONS)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_convolutions(op_type, shape, attributes, bias):
    result = assert_same(conv_model(op_type, shape, bias=bias, **attributes))
    assert op_types(result) == [op_type]
    assert result.graph.outputs[0].name == "Y"


def test_float16_statistics():
    assert op_types(assert_same(conv_model("Conv", (6, 4, 3, 3), bias=True, dtype=np.float16))) == ["Conv"]


def gemm_model(*, bias: tuple[int, ...] | None = (6,), **attributes) -> onnx.ModelProto:
    weights = {"W": RNG.standard_normal((6, 4) if attributes.get("transB") else (4, 6)).astype(np.float32)}
    if bias is not None:
        weights["b"] = RNG.standard_normal(bias).astype(np.float32)
    return model(
        graph(
            [node("Gemm", ["X", *weights], ["H"], name="fc", **attributes), norm("H")],
            [value("X", ["M", 4])],
            [value("Y", ["M", 6])],
            {**weights, **statistics(6)},
        )
    )


@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("bias", [None, (6,)], ids=str)
def test_gemm(trans_b, bias):
    assert op_types(assert_same(gemm_model(bias=bias, transB=trans_b))) == ["MatMul", "Add"]


@pytest.mark.parametrize("attributes", [{"alpha": 2.0}, {"beta": 0.5}, {"bias": (1, 6)}], ids=str)
def test_a_scaled_gemm_keeps_its_norm(attributes):
    assert "BatchNormalization" in op_types(assert_same(gemm_model(**attributes)))


def two_readers(*extra: onnx.NodeProto, outputs: tuple[str, ...] = ("Y", "Z"), weights=None) -> onnx.ModelProto:
    """Conv -> BN, and a second use of something in between."""
    return model(
        graph(
            [node("Conv", ["X", "W"], ["H"], name="conv"), norm("H"), *extra],
            [value("X", ["M", 4, 5, 5]), value("mean_at_run_time", [6])],
            [value(name, ["M", 6, None, None]) for name in outputs],
            {"W": RNG.standard_normal((6, 4, 3, 3)).astype(np.float32), **statistics(6), **(weights or {})},
        )
    )


KEPT = {
    "the convolution has another reader": two_readers(node("Relu", ["H"], ["Z"])),
    "the convolution is an output": two_readers(outputs=("Y", "H")),
    "the weight is shared": two_readers(node("Conv", ["X", "W"], ["Z"], name="other")),
}


@pytest.mark.parametrize("proto", KEPT.values(), ids=KEPT)
def test_the_norm_stays_where(proto):
    assert "BatchNormalization" in op_types(assert_same(proto))


def test_statistics_computed_at_run_time_stay():
    proto = two_readers(outputs=("Y",))
    proto.graph.node[1].input[3] = "mean_at_run_time"
    assert "BatchNormalization" in op_types(assert_same(proto))


def test_training_mode_stays():
    proto = model(
        graph(
            [
                node("Conv", ["X", "W"], ["H"], name="conv"),
                node("BatchNormalization", ["H", "scale", "shift", "mean", "var"], ["Y", "m", "v"], training_mode=1),
            ],
            [value("X", ["M", 4, 5, 5])],
            [value("Y", ["M", 6, None, None])],
            {"W": RNG.standard_normal((6, 4, 3, 3)).astype(np.float32), **statistics(6)},
        )
    )
    assert "BatchNormalization" in op_types(assert_same(proto))


def test_the_epsilon_counts():
    proto = conv_model("Conv", (6, 4, 3, 3), bias=False)
    proto.graph.node[1].attribute.append(onnx.helper.make_attribute("epsilon", 0.5))
    assert op_types(assert_same(proto)) == ["Conv"]


def test_a_norm_behind_a_norm_is_folded_too():
    proto = conv_model("Conv", (6, 4, 3, 3), bias=True)
    proto.graph.node[1].output[0] = "N"
    proto.graph.node.append(norm("N"))
    assert op_types(assert_same(proto)) == ["Conv"]


def test_a_norm_inside_a_branch_is_not_folded_into_a_convolution_outside():
    """Its output is the branch's output, which the branch itself has to compute."""
    branches = {
        "then_branch": graph([norm("H", "T")], [], [value("T", ["M", 6, None, None])], name="then"),
        "else_branch": graph([node("Neg", ["X"], ["E"])], [], [value("E", ["M", 4, 5, 5])], name="else"),
    }
    proto = model(
        graph(
            [node("Conv", ["X", "W"], ["H"], name="conv"), node("If", ["flag"], ["Y"], name="if", **branches)],
            [value("X", ["M", 4, 5, 5]), value("flag", [], np.bool_)],
            [value("Y", ["M", None, None, None])],
            {"W": RNG.standard_normal((6, 4, 3, 3)).astype(np.float32), **statistics(6)},
        )
    )
    for flag in (True, False):
        assert_same(proto, flag=np.array(flag))
