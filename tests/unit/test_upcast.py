"""Float32 copies of bfloat16 models: runnable, with every bfloat16 weight exact."""

import ml_dtypes
import numpy as np
import onnx
import pytest
from graphs import graph, model, node, relative_error, run, run_reference, value
from tiny_models import TINY_MODELS, feeds_of

from onnxq.upcast import float32_copy, needs_upcast


@pytest.mark.parametrize("name", TINY_MODELS)
def test_only_bfloat16_models_need_it(tmp_path, name):
    for dtype, expected in ((np.float32, False), (np.float16, False), (ml_dtypes.bfloat16, True)):
        onnx.save(TINY_MODELS[name](dtype), tmp_path / "model.onnx")
        assert needs_upcast(tmp_path / "model.onnx") is expected


@pytest.mark.parametrize("name", TINY_MODELS)
def test_the_copy_runs_and_is_the_float32_model_of_the_same_weights(tmp_path, name):
    narrow = TINY_MODELS[name](ml_dtypes.bfloat16)
    onnx.save(narrow, tmp_path / "model.onnx")
    (tmp_path / "copy").mkdir()
    copy = float32_copy(tmp_path / "model.onnx", tmp_path / "copy")
    onnx.checker.check_model(copy, full_check=True)
    feeds = feeds_of(narrow)
    (got,) = run(copy, feeds)
    assert got.dtype == np.float32
    weights = {item.name: onnx.numpy_helper.to_array(item) for item in narrow.graph.initializer}
    for item in onnx.load(copy).graph.initializer:
        assert (onnx.numpy_helper.to_array(item) == weights[item.name].astype(np.float32)).all()
    (expected,) = run_reference(onnx.load(copy), feeds)
    assert relative_error(got, expected) < 1e-5


def test_casts_and_constants_become_float32_too(tmp_path):
    half = onnx.numpy_helper.from_array(np.array(0.5, ml_dtypes.bfloat16))
    proto = model(
        graph(
            [
                node("Cast", ["X"], ["narrow"], to=onnx.TensorProto.BFLOAT16),
                node("Constant", [], ["half"], value=half),
                node("Mul", ["narrow", "half"], ["small"]),
                node("Cast", ["small"], ["Y"], to=onnx.TensorProto.FLOAT),
            ],
            [value("X", ["M", 4])],
            [value("Y", ["M", 4])],
        )
    )
    onnx.save(proto, tmp_path / "model.onnx")
    assert needs_upcast(tmp_path / "model.onnx")
    (tmp_path / "copy").mkdir()
    x = np.float32([[1, 2, 3, 1.00001]])
    (y,) = run(float32_copy(tmp_path / "model.onnx", tmp_path / "copy"), {"X": x})
    assert (y == x * np.float32(0.5)).all()  # not rounded to bfloat16 on the way
