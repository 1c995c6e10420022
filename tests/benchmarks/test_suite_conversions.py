"""Every public model through `convert` with defaults: the file is valid, and every runtime runs it (marked `suite`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator

import onnxq
from benchmarks.models import SUITE, ModelFolder, fetch_models
from onnxq.model import load
from onnxq.session import Session, SessionOptions
from onnxq.synthetic import synthetic_feeds

SMALL = {"ppocrv6-cls"}
"""Small enough for the ONNX reference evaluator, which is plain Python. (Magika is too, but the evaluator
fails on the float model itself, in a Squeeze.)"""

LEAST_DB_TO_OTHERS = 15.0
"""Between two runtimes on one file: both compute in int8, each with its own rounding of activations."""

LEAST_DB_WITH_RANDOM_CACHES = 8.0
"""smollm2-kv alone: caches of random numbers amplify those roundings, 11.3 dB were seen."""


def sqnr_db(reference: np.ndarray, other: np.ndarray) -> float:
    noise = float(np.square(reference.astype(np.float64) - other).sum())
    return float("inf") if noise == 0 else 10 * np.log10(float(np.square(reference.astype(np.float64)).sum()) / noise)


@pytest.mark.suite
@pytest.mark.parametrize("model", SUITE, ids=lambda model: model.name)
def test_a_default_conversion_runs_everywhere(model, tmp_path: Path) -> None:
    folder = ModelFolder.default()
    fetch_models([model], folder, with_data=False, say=lambda line: None)
    path, output = model.path(folder), tmp_path / "quantized.onnx"
    report = onnxq.convert(path, output)
    assert report.passed
    assert not [warning for warning in report.warnings if "was expected to run as" in warning]
    onnx.checker.check_model(str(output))
    feed = synthetic_feeds(load(path).ir.graph, Session(path, SessionOptions()), count=1, seed=1)[0]
    plain = onnxruntime.InferenceSession(str(output), providers=["CPUExecutionProvider"])
    names = [value.name for value in plain.get_outputs()]
    expected = plain.run(names, dict(feed))
    options = onnxruntime.SessionOptions()
    onnxq.register_ops(options)
    ours = onnxruntime.InferenceSession(str(output), options, providers=["CPUExecutionProvider"])
    runs = {"onnxq's kernels": ours.run(names, dict(feed))}
    if model.name in SMALL:
        runs["the reference evaluator"] = ReferenceEvaluator(str(output)).run(names, dict(feed))
    least = LEAST_DB_WITH_RANDOM_CACHES if model.name == "smollm2-kv" else LEAST_DB_TO_OTHERS
    for runtime, got in runs.items():
        for name, one, other in zip(names, expected, got, strict=True):
            assert sqnr_db(one, other) > least, f"{runtime}: {name}"


@pytest.mark.suite
def test_a_tied_table_is_stored_once_and_every_matmul_is_packed(tmp_path: Path) -> None:
    """The bars of SmolLM2: 210 block matmuls and the head in MatMulNBits, a fifth and a sixth of the float size."""
    folder = ModelFolder.default()
    (smollm2,) = [model for model in SUITE if model.name == "smollm2-135m"]
    fetch_models([smollm2], folder, with_data=False, say=lambda line: None)
    for table_bits, share in ((8, 0.20), (4, 0.16)):
        report = onnxq.convert(smollm2.path(folder), tmp_path / f"{table_bits}.onnx", table_bits=table_bits)
        assert sum(site.found == "MatMulNBits" for site in report.sites) == 211
        assert report.output_bytes <= share * report.float_bytes
        stored = [site for site in report.sites if site.decision.site.weight == "token_embd.weight"]
        assert len(stored) == 2
        assert sum(site.stored_bytes > 0 for site in stored) == 1


@pytest.mark.suite
@pytest.mark.parametrize(("form", "kernels", "cosine"), [
    ("dynamic", {"MatMulIntegerToFloat": 18, "DynamicQuantizeMatMul": 18}, 0.97),
    ("matmulnbits", {"MatMulNBits": 36}, 0.995),
])  # fmt: skip
def test_minilm_in_the_thin_formats(tmp_path: Path, form: str, kernels: dict[str, int], cosine: float) -> None:
    folder = ModelFolder.default()
    (minilm,) = [model for model in SUITE if model.name == "minilm"]
    fetch_models([minilm], folder, with_data=False, say=lambda line: None)
    report = onnxq.convert(
        minilm.path(folder), tmp_path / "q.onnx", format=form, bits=8, data="benchmarks.models.data:minilm_texts"
    )
    found = [site.found for site in report.sites if site.decision.format == form]
    assert {name: found.count(name) for name in set(found)} == kernels
    assert report.verdict.outputs["last_hidden_state"].cosine > cosine
