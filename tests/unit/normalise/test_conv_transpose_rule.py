"""A transposed convolution without overlap becomes a 1x1 convolution and a shuffle, numerically the same."""

import numpy as np
import pytest
from agreement import assert_same
from graphs import graph, model, node, op_types, value

RNG = np.random.default_rng(1)


def upsampling(size=2, *, channels_in=3, channels_out=5, bias=True, behind=None, **attributes):
    weights = {"W": RNG.standard_normal((channels_in, channels_out, size, size)).astype(np.float32)}
    if bias:
        weights["b"] = RNG.standard_normal(channels_out).astype(np.float32)
    settings = {"strides": [size, size], **attributes}
    nodes = [node("ConvTranspose", ["X", *weights], ["up"], name="up", **settings)]
    last = "up"
    if behind == "Clip":
        weights |= {"low": np.float32(-0.5), "high": np.float32(0.5)}
        nodes.append(node("Clip", ["up", "low", "high"], ["cut"], name="cut"))
        last = "cut"
    elif behind:
        nodes.append(node(behind, ["up"], ["cut"], name="cut"))
        last = "cut"
    return model(graph(nodes, [value("X", [2, channels_in, 3, 4])], [value(last, [None] * 4)], weights))


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("bias", [False, True])
def test_split(size, bias):
    result = assert_same(upsampling(size, bias=bias))
    assert op_types(result) == ["Conv", "DepthToSpace"]
    assert next(item.name for item in result.graph) == "up"


@pytest.mark.parametrize("behind", ["Relu", "Clip"])
def test_saturation_moves_in_front_of_the_shuffle(behind):
    result = assert_same(upsampling(behind=behind))
    assert op_types(result) == ["Conv", behind, "DepthToSpace"]
    assert result.graph.outputs[0].name == "cut"


def test_another_function_stays_behind():
    assert op_types(assert_same(upsampling(behind="Sigmoid"))) == ["Conv", "DepthToSpace", "Sigmoid"]


@pytest.mark.parametrize(
    "attributes",
    [
        {"strides": [1, 1]},
        {"strides": [2, 1]},
        {"pads": [1, 1, 0, 0]},
        {"output_padding": [1, 1]},
        {"dilations": [2, 2]},
        {"auto_pad": "SAME_UPPER", "strides": [1, 1]},
    ],
    ids=str,
)
def test_kept_where_patches_overlap_or_are_cut(attributes):
    assert op_types(assert_same(upsampling(**attributes))) == ["ConvTranspose"]
