"""A network trained with fake quantization: its accuracy, its ranges and its codes survive, on integer kernels."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import run, run_reference
from onnx import numpy_helper

from onnxq import pipeline
from onnxq.recipe import recipe_from

DATA = Path(__file__).parents[1] / "data"
ACCURACY = 0.975
"""Of the fake-quantized network on the 200 stored digits, as train_fake_quantized.py printed it."""


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    path = tmp_path_factory.mktemp("trained") / "digits.onnx"
    report = pipeline.convert(DATA / "fake_quantized_digits.onnx", path, recipe=recipe_from())
    return report, path


@pytest.fixture(scope="module")
def digits():
    with np.load(DATA / "fake_quantized_digits.npz") as archive:
        return archive["pixels"].astype(np.float32) / 255, archive["labels"], archive["logits"]


def test_integer_kernels_alone(converted):
    report, _ = converted
    assert {item.planned.node: item.found for item in report.integers} == {
        "conv0": "QLinearConv",
        "conv1": "QLinearConv",
        "flatten": "Flatten",
        "fc": "QGemm",
    }
    assert report.warnings == ()
    assert {decision.reason for decision in report.activations if decision.shares_with is None} == {"trained"}


def test_the_same_codes(converted):
    _, path = converted
    before = {
        item.name: numpy_helper.to_array(item)
        for item in onnx.load(DATA / "fake_quantized_digits.onnx").graph.initializer
    }
    after = {item.name: numpy_helper.to_array(item) for item in onnx.load(path).graph.initializer}
    for layer in ("conv0", "conv1"):
        np.testing.assert_array_equal(after[f"{layer}.weight.codes"], before[f"{layer}.weight_codes"])
        np.testing.assert_array_equal(after[f"{layer}.weight.scales"], before[f"{layer}.weight_scale"])
    assert after["relu0_out.scale"] == before["relu0_out_scale"]


@pytest.mark.parametrize("runner", [run, run_reference], ids=["onnxruntime", "reference"])
def test_the_same_accuracy(converted, digits, runner):
    pixels, labels, logits = digits
    (got,) = runner(converted[1], {"digits": pixels})
    assert np.mean(got.argmax(axis=1) == labels) == pytest.approx(ACCURACY, abs=0.005)
    # A sum may round to the neighbouring code here and there; that moves a logit by a few hundredths.
    assert np.abs(got - logits).max() < 0.02 * np.abs(logits).max()


def test_other_ranges_would_be_noticed(converted, digits):
    pixels, _, logits = digits
    broken = onnx.load(converted[1])
    for item in broken.graph.initializer:
        if item.name == "conv1.weight.scales":
            item.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(item) * np.float32(1.05), item.name))
    (got,) = run(broken, {"digits": pixels})
    assert np.abs(got - logits).max() > 0.02 * np.abs(logits).max()
