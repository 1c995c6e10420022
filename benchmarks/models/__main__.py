"""The command line: `python -m benchmarks.models fetch | list | score`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from .candidate import Candidate
from .errors import SuiteError
from .fetch import fetch_models
from .folder import ModelFolder
from .suite import SUITE, SuiteModel, find_model

DEFAULT_FETCH = tuple(model.name for model in SUITE if model.name != "smollm2-kv")
"""All but the variant that only text generation needs (it is half a gigabyte)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0 when it went well, 1 with one line on standard error when not."""
    chosen = _parser().parse_args(arguments)
    folder = ModelFolder(chosen.dir) if chosen.dir else ModelFolder.default()
    try:
        if chosen.command == "fetch":
            models = [find_model(name) for name in chosen.names or DEFAULT_FETCH]
            fetch_models(models, folder, with_data=not chosen.weights_only, say=print)
        elif chosen.command == "list":
            _list(folder)
        else:
            _score(chosen, folder)
    except SuiteError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.models", description=__doc__)
    where = argparse.ArgumentParser(add_help=False)
    where.add_argument("--dir", type=Path, help="model folder [$ONNXQ_MODELS, else ~/.cache/onnxq-models]")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", parents=[where], help="what the suite has, and what of it is built")
    fetching = commands.add_parser("fetch", parents=[where], help="download packages and build models")
    fetching.add_argument("names", nargs="*", metavar="NAME", help=f"[{' '.join(DEFAULT_FETCH)}]")
    fetching.add_argument("--weights-only", action="store_true", help="no data for scoring and calibration")
    scoring = commands.add_parser("score", parents=[where], help="measure an ONNX file of one of the models")
    scoring.add_argument("name", metavar="MODEL_NAME")
    scoring.add_argument("file", type=Path, nargs="?", metavar="MODEL.onnx", help="[the suite's float model]")
    scoring.add_argument("--metric", help="only this one [all that the model has]")
    scoring.add_argument("--library", type=Path, help="a custom-op library to register")
    scoring.add_argument("--limit", type=_positive, help="use at most so many samples [as the baselines]")
    scoring.add_argument("--json", action="store_true", help="one JSON object on standard output")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def _list(folder: ModelFolder) -> None:
    for model in SUITE:
        size = f"{_megabytes(model.path(folder)):.1f} MB" if model.is_built(folder) else "not fetched"
        print(f"{model.name:20} {size:>12}  {model.what}")
        for metric in model.metrics:
            print(f"{'':34}  {metric.name}: {metric.baseline}")


def _score(chosen: argparse.Namespace, folder: ModelFolder) -> None:
    model = find_model(chosen.name)
    reference = folder.built(model.file)
    file = chosen.file or reference
    if not file.exists():
        raise SuiteError(f"{file} does not exist")
    candidate = Candidate(file, reference, folder, chosen.library, chosen.limit)
    scores = {
        metric.name: dataclasses.asdict(metric.measure(candidate))
        for metric in model.metrics
        if chosen.metric in (None, metric.name)
    }
    if not scores:
        raise SuiteError(f"{model.name} has no metric {chosen.metric!r}; it has {_metric_names(model)}")
    if chosen.json:
        record = {"model": model.name, "file": str(file), "megabytes": _megabytes(file)}
        print(json.dumps(record | {name: _finite(score) for name, score in scores.items()}))
        return
    print(f"{model.name}: {file} ({_megabytes(file):.2f} MB)")
    for metric in (metric for metric in model.metrics if metric.name in scores):
        numbers = "  ".join(f"{key} {value:.6g}" for key, value in scores[metric.name].items())
        print(f"  {metric.name}: {numbers}\n    float: {metric.baseline}")


def _metric_names(model: SuiteModel) -> str:
    return ", ".join(metric.name for metric in model.metrics)


def _megabytes(file: Path) -> float:
    """Size of an ONNX file and of the data files it refers to, in units of 10^6 bytes."""
    tensors = onnx.load(file, load_external_data=False).graph.initializer
    locations = {ExternalDataInfo(tensor).location for tensor in tensors if uses_external_data(tensor)}
    return sum(part.stat().st_size for part in (file, *(file.parent / name for name in locations))) / 1e6


def _finite(score: dict[str, float]) -> dict[str, float | None]:
    """JSON has no infinity: null says that the ratio's denominator was 0."""
    return {name: value if math.isfinite(value) else None for name, value in score.items()}


if __name__ == "__main__":
    sys.exit(main())
