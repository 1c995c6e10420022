"""Moments: what MomentSource observes in a real graph, and convert with a method that asks for it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxq
from onnxq.data import Data
from onnxq.model import load
from onnxq.moments import MomentSource
from onnxq.normalise import normalise
from onnxq.session import Feed, SessionOptions

RNG = np.random.default_rng(5)
FIRST, SECOND = (RNG.standard_normal(shape).astype(np.float32) for shape in ((64, 48), (48, 40)))
BATCHES = [RNG.standard_normal((rows, 64)).astype(np.float32) for rows in (3, 5, 1)]  # ragged


@pytest.fixture
def two_matmuls(tmp_path: Path) -> Path:
    """x @ FIRST -> Tanh -> @ SECOND."""
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["h"], name="/first"),
        helper.make_node("Tanh", ["h"], ["t"], name="/tanh"),
        helper.make_node("MatMul", ["t", "second"], ["y"], name="/second"),
    ]
    graph = helper.make_graph(
        nodes,
        "two_matmuls",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 40])],
        [numpy_helper.from_array(FIRST, "first"), numpy_helper.from_array(SECOND, "second")],
    )
    path = tmp_path / "two.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


def feeds() -> Iterator[Feed]:
    for batch in BATCHES:
        yield {"x": batch}


@pytest.mark.parametrize("budget", [1, 1 << 20], ids=["a pass per weight", "one pass"])
def test_the_gram_matrix_is_that_of_the_inputs(two_matmuls: Path, budget: int) -> None:
    model = normalise(load(two_matmuls), opset=21)
    inputs = {"/first": np.concatenate(BATCHES), "/second": np.tanh(np.concatenate(BATCHES) @ FIRST)}
    with MomentSource(
        model,
        {"/first": "gram", "/second": "gram"},
        Data("test", feeds),
        options=SessionOptions(),
        state={},
        budget=budget,
    ) as source:
        for node, x in inputs.items():
            (evidence,) = source.evidence(node)
            expected = x.astype(np.float64).T @ x / len(x)
            np.testing.assert_allclose(evidence.gram, expected, atol=1e-5)
            np.testing.assert_allclose(evidence.second_moment, np.diag(expected), atol=1e-5)
            np.testing.assert_allclose(evidence.mean, x.mean(axis=0), atol=1e-5)
        assert source.evidence("/tanh") == ()


def test_gptq_from_the_command_line_needs_data_and_gains_by_it(two_matmuls: Path, tmp_path: Path) -> None:
    with pytest.raises(onnxq.RecipeError, match="'/first': method gptq weighs errors by real activations; give --data"):
        onnxq.convert(two_matmuls, tmp_path / "none.onnx", method="gptq")
    correlated = (RNG.standard_normal((60, 8)) @ RNG.standard_normal((8, 64))).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=correlated)
    damage = {}
    for method in ("rtn", "gptq"):
        report = onnxq.convert(
            two_matmuls, tmp_path / f"{method}.onnx", method=method, data=str(tmp_path / "data.npz"), skip=["/second"]
        )
        assert report.verdict is not None
        damage[method] = report.verdict.outputs["y"].sqnr_db
    assert damage["gptq"] > damage["rtn"] + 3.0
