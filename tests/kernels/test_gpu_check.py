"""What kernels/gpu_check.sh would run on a GPU, as far as a machine without one can tell: its script parses and stays
within ten minutes, its contenders multiply by one and the same weight, and its JSON renders."""

import importlib.util
import re
import subprocess
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from benchmarks.gpu_results.__main__ import NONE_YET, main, render

KERNELS = Path(__file__).resolve().parents[2] / "kernels"
SCRIPT = KERNELS / "gpu_check.sh"


@pytest.fixture(scope="module")
def gpu_check():
    spec = importlib.util.spec_from_file_location("gpu_check", KERNELS / "testing" / "gpu_check.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_script_parses_and_takes_at_most_ten_minutes():
    subprocess.run(["bash", "-n", SCRIPT], check=True)
    text = SCRIPT.read_text(encoding="utf8")
    limits = [int(limit) for limit in re.findall(r"^(?:part \w+|timeout) (\d+) ", text, re.MULTILINE)]
    assert len(limits) == 7
    assert sum(limits) <= 600
    named = set(re.findall(r"\$check (\w+)", text))
    assert named == {"build", "correctness", "sanitizer", "session"}


def product(content: bytes, a: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(None, {"A": a})[0].astype(np.float64)


@pytest.mark.parametrize(("block", "zero_points"), [(32, False), (128, True)])
def test_the_contenders_multiply_by_one_weight(gpu_check, block, zero_points):
    k, n = 256, 64
    a = np.random.default_rng(1).standard_normal((3, k)).astype(np.float16)
    made = {kind: gpu_check.model(k, n, kind, block=block, zero_points=zero_points)
            for kind in ("float", "packed", "matmulnbits")}  # fmt: skip
    exact = product(made["float"], a)
    for kind in ("packed", "matmulnbits"):
        onnx.checker.check_model(made[kind])
        # int8 activations in the packed kind, float16 sums elsewhere: a percent; another weight would be 140 % off
        assert np.linalg.norm(product(made[kind], a) - exact) < 0.02 * np.linalg.norm(exact)


def test_the_contenders_of_fpa_intb_are_what_it_takes(gpu_check):
    """4 bits at blocks of 64 or 128, zero points, N divisible by 64, K by the block: else it is the default again."""
    (fpa,) = [settings for settings in gpu_check.CONTENDERS.values() if settings[2]]
    assert fpa == ("matmulnbits", 128, True)
    node = onnx.load_from_string(gpu_check.model(256, 64, fpa[0], block=fpa[1], zero_points=True)).graph.node[0]
    assert list(node.input) == ["A", "B", "scales", "zero_points"]
    assert all(n % 64 == 0 and k % fpa[1] == 0 for k, n in gpu_check.SHAPES)


def test_the_floor_counts_every_byte_once(gpu_check):
    weights = 4096 * 4096
    assert gpu_check.product_bytes(0, 4096, 4096, 32) == weights * (0.5 + 2 / 32)
    assert gpu_check.product_bytes(1, 4096, 4096, 128) == weights * (0.5 + 2.5 / 128) + 2 * 8192


def result(gpu_check) -> dict:
    times = {name: 10.0 + index for index, name in enumerate(gpu_check.CONTENDERS)}
    return {
        "status": {"correctness": "passed", "racecheck": "failed"}, "correctness": {"products": 9, "failures": []},
        "measured_on_hardware": True, "onnxruntime": "1.31.1",
        "device": {"name": "Test", "multiprocessors": 7, "major": 8, "minor": 6},
        "placement": {"providers": ["CUDAExecutionProvider"], "passed": True},
        "graph_capture": {"worst": 1e-4, "passed": True},
        "timings_us": [{"k": 4096, "n": 4096, "m": 1, **times, "floor_32": 5.0, "floor_128": 4.0}],
    }  # fmt: skip


def test_a_result_renders(gpu_check):
    text = render(result(gpu_check), "test.json")
    assert "## Test (sm_86, 7 multiprocessors)" in text
    assert "correctness passed, racecheck failed" in text
    assert "| 4096 x 4096 | 1 | 5.0 | 10.0 | 11.0 | 12.0 | 13.0 | 14.0 | 15.0 | 2.00 | 1.10 |" in text
    header, rule = text.splitlines()[-3:-1]
    assert header.count("|") == rule.count("|") == text.splitlines()[-1].count("|")


def test_what_was_not_measured_is_not_shown_as_a_result(gpu_check, tmp_path, capsys):
    failed = {"status": {"build": "failed"}, "correctness": None}
    assert "no measurement on hardware; parts: build failed" in render(failed, "x.json")
    if not list((Path(__file__).resolve().parents[2] / "benchmarks/gpu_results").glob("*.json")):
        assert main([]) == 0
        assert NONE_YET in capsys.readouterr().out
