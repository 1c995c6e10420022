"""Graphs that are valid but unusual: they convert, and compute what they computed before."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from graphs import graph, model, node, value
from onnx import TensorProto, helper, numpy_helper

import onnxq

RNG = np.random.default_rng(11)
WEIGHT = (RNG.standard_normal((64, 48)) / 8).astype(np.float32)


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def converted(proto: onnx.ModelProto, folder: Path, **wishes) -> tuple[Path, Path, "onnxq.api.ConvertReport"]:
    onnx.save(proto, folder / "model.onnx")
    report = onnxq.convert(folder / "model.onnx", folder / "out.onnx", **wishes)
    onnx.checker.check_model(onnx.load(folder / "out.onnx"), full_check=True)
    return folder / "model.onnx", folder / "out.onnx", report


def branch(name: str, bias: float) -> onnx.GraphProto:
    """Conv with a bias of its own called `b`, then the shift of the outer scope."""
    nodes = [node("Conv", ["img", "cw", "b"], [f"{name}_c"]), node("Add", [f"{name}_c", "shift"], [f"{name}_y"])]
    output = helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, None)
    return helper.make_graph(nodes, name, [], [output], [numpy_helper.from_array(np.full(3, bias, np.float32), "b")])


@pytest.mark.parametrize("switch", [False, True])
def test_equal_names_in_two_branches_stay_two_constants(tmp_path: Path, switch: bool) -> None:
    choose = node("If", ["c"], ["y"], then_branch=branch("one", 1.0), else_branch=branch("hundred", 100.0))
    constants = {
        "cw": RNG.standard_normal((3, 2, 3, 3)).astype(np.float32),
        "shift": np.full((1, 3, 1, 1), 0.5, np.float32),
    }
    inputs = [value("img", [1, 2, 8, 8]), helper.make_tensor_value_info("c", TensorProto.BOOL, [])]
    before, after, _ = converted(model(graph([choose], inputs, [value("y", [1, 3, 6, 6])], constants)), tmp_path)
    feed = {"img": RNG.standard_normal((1, 2, 8, 8)).astype(np.float32), "c": np.array(switch)}
    np.testing.assert_allclose(session(after).run(None, feed)[0], session(before).run(None, feed)[0], rtol=1e-4)


def test_a_model_with_sequences_keeps_their_types(tmp_path: Path) -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["y"], name="/fc"),
        node("SequenceConstruct", ["y", "y"], ["s"]),
        node("ConcatFromSequence", ["s"], ["z"], axis=0),
    ]
    proto = model(graph(nodes, [value("x", ["M", 64])], [value("z", ["N", 48])], {"w": WEIGHT}))
    _, _, report = converted(proto, tmp_path)
    assert [site.found for site in report.sites] == ["MatMulNBits"]


def test_an_output_whose_shape_follows_the_data_is_named_and_not_compared(tmp_path: Path) -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["y"], name="/fc"),
        node("Greater", ["y", "zero"], ["positive"]),
        node("NonZero", ["positive"], ["where"]),
    ]
    outputs = [value("y", ["M", 48]), helper.make_tensor_value_info("where", TensorProto.INT64, [2, "count"])]
    constants = {"w": WEIGHT, "zero": np.zeros((), np.float32)}
    _, _, report = converted(model(graph(nodes, [value("x", ["M", 64])], outputs, constants)), tmp_path, bits=2)
    assert report.verdict is not None
    assert list(report.verdict.outputs) == ["y"]
    assert "its shape follows the data" in report.verdict.unwatched["where"]


def test_integers_spelled_like_a_hard_swish_stay_integers(tmp_path: Path) -> None:
    nodes = [
        node("Add", ["q", "three"], ["a"]),
        node("Clip", ["a", "low", "six"], ["c"]),
        node("Mul", ["q", "c"], ["m"]),
        node("Div", ["m", "six"], ["r"]),
    ]
    constants = {name: np.array(number, np.int32) for name, number in (("three", 3), ("low", 0), ("six", 6))}
    inputs = [helper.make_tensor_value_info("q", TensorProto.INT32, ["N", 4])]
    outputs = [helper.make_tensor_value_info("r", TensorProto.INT32, ["N", 4])]
    before, after, _ = converted(model(graph(nodes, inputs, outputs, constants)), tmp_path)
    feed = {"q": np.arange(-8, 8, dtype=np.int32).reshape(4, 4)}
    assert (session(after).run(None, feed)[0] == session(before).run(None, feed)[0]).all()


def test_invented_names_do_not_hide_those_of_the_outer_scope(tmp_path: Path) -> None:
    inner = [node("Gemm", ["x", "w", "bias"], ["o"], name="/inner")]
    output = helper.make_tensor_value_info("o", TensorProto.FLOAT, None)
    then = helper.make_graph(inner, "then", [], [output])
    otherwise = helper.make_graph([node("Identity", ["o_matmul"], ["e"])], "else", [], [
        helper.make_tensor_value_info("e", TensorProto.FLOAT, None)
    ])  # fmt: skip
    nodes = [
        node("MatMul", ["x", "w"], ["o_matmul"], name="/outer"),
        node("If", ["c"], ["y"], then_branch=then, else_branch=otherwise),
    ]
    inputs = [value("x", ["M", 64]), helper.make_tensor_value_info("c", TensorProto.BOOL, [])]
    constants = {"w": WEIGHT, "bias": np.ones(48, np.float32)}
    _, after, _ = converted(model(graph(nodes, inputs, [value("y", ["M", 48])], constants)), tmp_path)
    assert session(after).run(None, {"x": np.ones((2, 64), np.float32), "c": np.array(True)})[0].shape == (2, 48)
