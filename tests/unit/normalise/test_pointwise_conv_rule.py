"""A 1x1 Conv over one position becomes a MatMul; over an image it stays a convolution."""

import numpy as np
import onnx
import pytest
from agreement import assert_same
from graphs import graph, model, node, op_types, value

C, OUT = 12, 20  # channels in and out
RNG = np.random.default_rng(0)


def pooled_model(
    *between: onnx.NodeProto, source: str = "P", bias: bool = True, rank: int = 2, dtype=np.float32, **attributes
) -> onnx.ModelProto:
    """GlobalAveragePool -> `between` -> 1x1 Conv over `source`."""
    weights = {"W": RNG.standard_normal((OUT, C, *[1] * rank)).astype(dtype)}
    if bias:
        weights["b"] = RNG.standard_normal(OUT).astype(dtype)
    return model(
        graph(
            [
                node("GlobalAveragePool", ["X"], ["P"]),
                *between,
                node("Conv", [source, *weights], ["Y"], name="conv", **attributes),
            ],
            [value("X", ["M", C, *["H", "V", "D"][:rank]], dtype)],
            [value("Y", ["M", OUT, *[None] * rank], dtype)],
            weights,
        )
    )


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_behind_a_global_pooling(bias, rank):
    result = assert_same(pooled_model(bias=bias, rank=rank))
    assert op_types(result) == ["GlobalAveragePool", "Reshape", "MatMul", *(["Add"] if bias else []), "Reshape"]
    assert result.graph.node("conv").op_type == "MatMul"


def test_behind_an_activation_behind_a_global_pooling():
    assert "MatMul" in op_types(assert_same(pooled_model(node("Sigmoid", ["P"], ["S"]), source="S")))


def test_a_squeeze_and_excite_block_is_two_matmuls():
    proto = model(
        graph(
            [
                node("GlobalAveragePool", ["X"], ["P"]),
                node("Conv", ["P", "W1", "b1"], ["H"], name="squeeze"),
                node("Relu", ["H"], ["R"]),
                node("Conv", ["R", "W2", "b2"], ["S"], name="excite"),
                node("Sigmoid", ["S"], ["G"]),
                node("Mul", ["X", "G"], ["Y"]),
            ],
            [value("X", ["M", C, 7, 7])],
            [value("Y", ["M", C, 7, 7])],
            {
                "W1": RNG.standard_normal((4, C, 1, 1)).astype(np.float32),
                "b1": RNG.standard_normal(4).astype(np.float32),
                "W2": RNG.standard_normal((C, 4, 1, 1)).astype(np.float32),
                "b2": RNG.standard_normal(C).astype(np.float32),
            },
        )
    )
    ops = op_types(assert_same(proto))
    assert ops.count("MatMul") == 2
    assert "Conv" not in ops


def test_float16():
    assert "MatMul" in op_types(assert_same(pooled_model(dtype=np.float16)))


KEPT = {
    "groups": {"group": 2},
    "strides": {"strides": [2, 2]},
    "padding": {"pads": [1, 1, 1, 1]},
}


@pytest.mark.parametrize("attributes", KEPT.values(), ids=KEPT)
def test_other_convolutions_stay(attributes):
    proto = pooled_model(**attributes)
    if "group" in attributes:
        weight = next(item for item in proto.graph.initializer if item.name == "W")
        half = RNG.standard_normal((OUT, C // 2, 1, 1)).astype(np.float32)
        weight.CopyFrom(onnx.numpy_helper.from_array(half, "W"))
    assert "Conv" in op_types(assert_same(proto))


def test_over_an_image_it_stays():
    proto = pooled_model(source="X")
    assert "Conv" in op_types(assert_same(proto))


def test_over_an_image_of_one_pixel_it_does_not():
    proto = pooled_model(source="X")
    for dim in proto.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_value = 1
    assert "MatMul" in op_types(assert_same(proto))
