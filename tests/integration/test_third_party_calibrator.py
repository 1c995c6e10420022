"""A calibrator of somebody else, really installed with pip into a folder of its own, and used by name."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import onnxq_process
from tiny_models import conv_net

from onnxq.evidence import Evidence
from onnxq.plugin.registry import Plugin, Registry

SAMPLE = Path(__file__).resolve().parents[2] / "samples" / "third_party_calibrator"


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """Where the sample is installed; nothing is downloaded."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--no-build-isolation", "--target", folder, SAMPLE], check=True, timeout=120)
    return folder


@pytest.fixture
def model(tmp_path) -> Path:
    onnx.save(conv_net(), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def test_it_is_listed_with_its_distribution(installed):
    line = next(line for line in onnxq_process("plugins", path=installed).out.splitlines() if "power-of-two" in line)
    assert line.split() == ["calibrator", "power-of-two", "onnxq_power_of_two", "0.1.0"]


def test_without_it_the_name_is_unknown(model, tmp_path):
    result = onnxq_process("calibrate", model, "--calibrator", "power-of-two", "-o", tmp_path / "e.npz")
    assert result.code == 2
    assert "calibrator 'power-of-two' is not installed" in result.error
    assert not (tmp_path / "e.npz").exists()


@pytest.mark.parametrize("spare", [0, 1])
def test_it_calibrates_by_name_with_its_parameter(installed, model, tmp_path, spare):
    output = tmp_path / "e.npz"
    chosen = ("--calibrator", f"power-of-two:spare={spare}", "--all-tensors")
    result = onnxq_process("calibrate", model, *chosen, "-o", output, path=installed)
    assert result.code == 0, result.err
    namespace: dict = {}
    exec((SAMPLE / "onnxq_power_of_two.py").read_text(), namespace)
    plugin = Plugin("power-of-two", "calibrator", namespace["PowerOfTwo"], "sample", "0.1.0")
    evidence = Evidence.load(output, Registry({"power-of-two": plugin}, {}, {}))
    assert evidence.tensors
    for tensor, seen in evidence.observations.items():
        largest = max(-seen.low, seen.high)
        low, high = evidence.range(tensor, None)
        assert low == -high
        assert np.log2(high) == np.round(np.log2(high))
        assert high / 2 <= largest * 2**-spare < high


def test_its_refusal_of_a_parameter_is_a_usage_error(installed, model, tmp_path):
    chosen = ("--calibrator", "power-of-two:spare=9")
    result = onnxq_process("calibrate", model, *chosen, "-o", tmp_path / "e.npz", path=installed)
    assert result.code == 2
    assert "spare=9 is not a whole number from 0 to 4; it is made as power-of-two:spare=0" in result.error
