"""Equivalence: silent where normalising was right, outspoken where it was not."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from tiny_models import TINY_MODELS, feeds_of

from onnxq.equivalence import normalisation_changes
from onnxq.model import Model, load
from onnxq.normalise import normalise
from onnxq.session import SessionOptions


@pytest.fixture(params=["mlp", "transformer", "conv_net"])
def loaded(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Model, list[dict[str, np.ndarray]]]:
    builders = {**TINY_MODELS, **{builder.__name__: builder for builder in TINY_MODELS.values()}}
    proto = builders[request.param](np.float32)
    onnx.save(proto, tmp_path / "model.onnx")
    return load(tmp_path / "model.onnx"), [feeds_of(proto)]


def test_a_right_normalisation_says_nothing(loaded: tuple[Model, list[dict[str, np.ndarray]]]) -> None:
    model, feeds = loaded
    assert normalisation_changes(model, normalise(model, opset=21), feeds, SessionOptions()) == []


def test_one_weight_off_by_a_tenth_is_said(loaded: tuple[Model, list[dict[str, np.ndarray]]]) -> None:
    model, feeds = loaded
    wrong = normalise(model, opset=21)
    matrices = [value for value in wrong.ir.graph.initializers.values() if len(value.shape or ()) >= 2]
    last = max(matrices, key=lambda value: value.const_value.nbytes)  # type: ignore[union-attr]
    assert last.const_value is not None
    last.const_value = ir.Tensor(last.const_value.numpy() * np.float32(1.1), name=last.name)
    changes = normalisation_changes(model, wrong, feeds, SessionOptions())
    assert changes
    assert "a bug in onnxq, please report it" in changes[0]
