"""The table of models, the command line, and (marked `suite`) the real models end to end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.models import SUITE, ModelFolder, SuiteError, fetch_models, find_model
from benchmarks.models.__main__ import main
from benchmarks.models.errors import require
from benchmarks.models.photos import calibration_photos, evaluation_photos


def test_names_and_files_are_unique() -> None:
    for attribute in ("name", "file"):
        values = [getattr(model, attribute) for model in SUITE]
        assert len(set(values)) == len(values)
    for model in SUITE:
        names = [metric.name for metric in model.metrics]
        assert names
        assert len(set(names)) == len(names)


def test_an_unknown_model_is_answered_with_the_known_ones() -> None:
    with pytest.raises(SuiteError, match=r"no model 'bert'; the suite has smollm2-135m, .*silero-vad"):
        find_model("bert")


def test_a_missing_package_names_the_extra() -> None:
    with pytest.raises(SuiteError, match=r"'no_such_module': pip install 'onnxq\[models\]'"):
        require("no_such_module.inner")


def test_importing_the_suite_imports_nothing_heavy() -> None:
    heavy = "onnxruntime gguf tokenizers PIL sklearn torch onnxq"
    code = f"import sys, benchmarks.models.__main__; print([m for m in {heavy.split()} if m in sys.modules])"
    checkout = Path(__file__).resolve().parents[2]
    shown = subprocess.check_output([sys.executable, "-c", code], text=True, cwd=checkout)
    assert shown.strip() == "[]"


def test_list_without_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--dir", str(tmp_path / "none")]) == 0
    shown = capsys.readouterr().out
    for model in SUITE:
        assert model.name in shown
    assert shown.count("not fetched") == len(SUITE)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fetch", "nothing"], "no model 'nothing'"),
        (["score", "nothing", "x.onnx"], "no model 'nothing'"),
        (["score", "minilm", "x.onnx"], "benchmarks.models fetch"),
    ],
)
def test_errors_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main([*arguments, "--dir", str(tmp_path)]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert shown.count("\n") == 1
    assert message in shown


def test_photos_are_split_in_two(tmp_path: Path) -> None:
    data = tmp_path / "src/foolbox/foolbox/data"
    data.mkdir(parents=True)
    for number in range(20):
        (data / f"imagenet_{number:02}_{number * 7}.jpg").touch()
    folder = ModelFolder(tmp_path)
    calibration, evaluation = calibration_photos(folder), evaluation_photos(folder)
    assert len(calibration) == len(evaluation) == 10
    assert not {photo.path for photo in calibration} & {photo.path for photo in evaluation}
    assert evaluation[-1].label == 19 * 7


LIMITED_FLOAT_SCORES: dict[str, tuple[str, int | None, dict[str, float]]] = {
    "smollm2-135m": ("perplexity", 1020, {"tales": 23.8559, "manual": 18.1913}),
    "smollm2-degrid": ("perplexity", 1020, {"tales": 23.8559, "manual": 18.1913}),
    "smollm2-kv": ("perplexity", 1020, {"tales": 23.8559, "manual": 18.1913}),
    "minilm": ("similarity", 32, {"cosine": 1.0, "nearest_agreement": 1.0}),
    "efficientnet-lite0": ("photos", None, {"top1": 18, "top5": 19}),
    "ppocrv6-rec": ("lines", None, {"clean_exact": 0.9925, "hard_exact": 0.64}),
    "ppocrv6-det": ("pages", 1, {"precision": 1.0}),
    "ppocrv6-cls": ("orientation", None, {"accuracy": 0.97667}),
    "magika": ("files", 200, {"top1_agreement": 1.0}),
    "silero-vad": ("speech", 200, {"mean_difference": 0.0, "agreement": 1.0}),
}
"""For each model: a metric, a limit, and what the float model scores (to 1e-3)."""


@pytest.mark.suite
@pytest.mark.parametrize("name", LIMITED_FLOAT_SCORES)
def test_a_fetched_model_scores_its_baseline(
    name: str, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ModelFolder(tmp_path_factory.getbasetemp() / "model-suite")  # packages are shared by the cases
    model = find_model(name)
    fetch_models([model], folder)
    metric, limit, expected = LIMITED_FLOAT_SCORES[name]
    arguments = ["--limit", str(limit)] if limit else []
    assert main(["score", name, "--metric", metric, "--json", "--dir", str(folder.root), *arguments]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert {key: shown[metric][key] for key in expected} == pytest.approx(expected, abs=1e-3)
