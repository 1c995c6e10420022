"""`onnxq convert`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from onnxq import pipeline
from onnxq.cli.options import FILE, custom_op_option, data_option, recipe_options, recipe_wishes
from onnxq.cli.progress import live_progress
from onnxq.cli.tables import print_report

__all__ = ["convert"]

_MISSED_TARGET = 3


@click.command()
@click.argument("model", type=FILE)
@click.option("-o", "--output", type=FILE, metavar="OUT", help="Where to write [MODEL.onnxq.onnx beside the model].")
@recipe_options
@data_option
@click.option("--evidence", type=FILE, metavar="FILE.npz", help="Ranges of activations, from onnxq calibrate.")
@custom_op_option
@click.option("--report", type=FILE, metavar="PATH", help="Write the whole report to a .json file.")
@click.option("--bench", is_flag=True, help="Measure latency beside the float model.")
@click.option(
    "--max-ram", metavar="SIZE", help="Leave verification out if both models together would take more, e.g. 8GB."
)
@click.option("--overwrite", is_flag=True, help="Replace an existing output.")
def convert(
    model: Path,
    output: Path | None,
    *,
    data: str | None,
    evidence: Path | None,
    custom_op_libraries: tuple[Path, ...],
    report: Path | None,
    bench: bool,
    max_ram: str | None,
    overwrite: bool,
    **options: Any,
) -> None:
    """Quantize MODEL, verify the result, and report what was gained and lost.

    \b
    Examples:
      onnxq convert model.onnx
      onnxq convert model.onnx --method mse --data batches/ --report report.json
      onnxq convert network.onnx --format qdq --data batches/ --calibrator mse
      onnxq convert llm.onnx --table-bits 4 --override 'lm_head=bits:8'

    Without --data the models are compared on synthetic inputs: enough to see that nothing broke, not to
    judge accuracy.
    """
    recipe = recipe_wishes(options)
    with live_progress() as progress:
        result = pipeline.convert(
            model,
            output,
            recipe=recipe,
            data=data,
            evidence=evidence,
            custom_op_libraries=custom_op_libraries,
            report=report,
            bench=bench,
            max_ram=max_ram,
            overwrite=overwrite,
            progress=progress,
        )
    print_report(result)
    if not result.passed:
        sys.exit(_MISSED_TARGET)
