"""Models of opset 11 to 20 are raised to 21 and 25, the IR version with them."""

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from agreement import assert_same, normalised_graph
from graphs import graph, model, node, op_types, value
from onnx import helper

from onnxq.errors import ModelError
from onnxq.normalise.opset import raise_opset

K = 24
RNG = np.random.default_rng(0)


def network(opset: int, dtype=np.float32, weight_rows: int = K) -> onnx.ModelProto:
    """Operators whose definition changed on the way: Squeeze, Unsqueeze, Softmax, ReduceSum/Mean, Pad, Clip, Split,
    Dropout, BatchNormalization, and an If around one of them."""
    axes_are_inputs = opset >= 13
    weights = {
        "W": (RNG.standard_normal((K, weight_rows)) / 5).astype(dtype),
        "W2": (RNG.standard_normal((weight_rows, K)) / 5).astype(dtype),
        "axis": np.array([1], np.int64),
        "low": np.array(-2, dtype),
    }

    def with_axes(op_type: str, source: str, target: str) -> onnx.NodeProto:
        if axes_are_inputs:
            return node(op_type, [source, "axis"], [target])
        return node(op_type, [source], [target], axes=[1])

    branches = {
        "then_branch": graph([with_axes("Squeeze", "U", "T")], [], [value("T", ["M", K], dtype)], name="then"),
        "else_branch": graph([node("Neg", ["P"], ["E"])], [], [value("E", ["M", K], dtype)], name="else"),
    }
    return model(
        graph(
            [
                node("MatMul", ["X", "W"], ["H"], name="fc1"),
                node("Clip", ["H", "low"], ["C"]),
                node("Dropout", ["C"], ["D"]),
                node("MatMul", ["D", "W2"], ["P"], name="fc2"),
                with_axes("Unsqueeze", "P", "U"),
                node("If", ["flag"], ["B"], name="if", **branches),
                node("Softmax", ["B"], ["S"], axis=1),
                node("ReduceMax", ["S"], ["R"], keepdims=1, **({"axes": [1]} if opset < 18 else {})),
                node("Div", ["S", "R"], ["Y"]),
            ],
            [value("X", ["M", K], dtype), value("flag", [], np.bool_)],
            [value("Y", ["M", K], dtype)],
            weights,
        ),
        opset=opset,
    )


@pytest.mark.parametrize("target", [21, 25])
@pytest.mark.parametrize("opset", range(11, 21))
def test_raised_models_compute_the_same(opset, target):
    result = assert_same(network(opset), opset=target, flag=np.array(opset % 2 == 0), seeds=1)
    assert result.opset_imports[""] == target
    assert result.ir_version >= {21: 10, 25: 13}[target]


@pytest.mark.parametrize("opset", [13, 17])
def test_float16_models(opset):
    assert_same(network(opset, np.float16), flag=np.array(True))


def test_bfloat16_models_stay_bfloat16():
    """onnxruntime's CPU provider cannot run them; their graph is checked, and the float32 twin above computes."""
    result = normalised_graph(network(17, ml_dtypes.bfloat16))
    kinds = {item.dtype for item in result.graph.initializers.values()} - {ir.DataType.INT64}
    assert kinds == {ir.DataType.BFLOAT16}
    assert result.graph.outputs[0].dtype == ir.DataType.BFLOAT16


def test_a_newer_model_keeps_its_opset():
    assert normalised_graph(network(22), opset=21).opset_imports[""] == 22


def test_large_weights_go_round_the_converter_and_come_back_as_the_same_tensors():
    """The converter copies a whole protobuf through C++: weights above 1 KiB are held back, in every scope."""
    before = ir.from_proto(network(13, weight_rows=500))
    tensors = {name: item.const_value for name, item in before.graph.initializers.items()}
    after = raise_opset(before, 21)
    for name in ("W", "W2"):
        assert after.graph.initializers[name].const_value is tensors[name]
        assert before.graph.initializers[name].const_value is tensors[name]


def unchecked(op_type: str, opset: int, inputs: list[str], **attributes) -> onnx.ModelProto:
    """A model of one node that onnx's own checker refuses, as files in the wild have it."""
    main = graph(
        [node(op_type, inputs, ["Y"], name="norm", **attributes)],
        [value("X", ["M", 4, 5])],
        [value("Y", ["M", 4, 5])],
        {name: np.ones(2, np.float32) for name in inputs[1:]},
    )
    return helper.make_model(main, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@pytest.mark.parametrize("target", [21, 25])
def test_group_normalization_18_is_a_clear_error(target):
    with pytest.raises(ModelError, match=rf"opset 18 and cannot be raised to {target}.*GroupNormalization") as caught:
        normalised_graph(unchecked("GroupNormalization", 18, ["X", "s", "b"], num_groups=2), opset=target)
    assert "export it again" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_an_operator_that_onnx_does_not_know_is_a_clear_error():
    with pytest.raises(ModelError, match="Frobnicate"):
        normalised_graph(unchecked("Frobnicate", 13, ["X"]))


def test_operators_of_onnxruntimes_own_domain_pass():
    proto = model(
        graph(
            [node("MatMul", ["X", "W"], ["H"], name="fc"), node("FastGelu", ["H"], ["Y"], domain="com.microsoft")],
            [value("X", ["M", K])],
            [value("Y", ["M", K])],
            {"W": RNG.standard_normal((K, K)).astype(np.float32)},
        ),
        opset=13,
        domains=["com.microsoft"],
    )
    assert op_types(assert_same(proto)) == ["MatMul", "FastGelu"]
