"""`onnxq verify`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from onnxq import api
from onnxq.cli.options import FILE, custom_op_option, data_option
from onnxq.cli.tables import print_verdict
from onnxq.report import as_json

__all__ = ["verify"]

_MISSED_TARGET = 3


@click.command()
@click.argument("reference", metavar="FLOAT", type=FILE)
@click.argument("quantized", type=FILE)
@data_option
@custom_op_option
@click.option("--use-library", is_flag=True, help="Run onnxq's kernels instead of stock onnxruntime's.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Of synthetic feeds [0].")
@click.option("--json", "as_text", is_flag=True, help="Print JSON instead of tables.")
def verify(
    reference: Path,
    quantized: Path,
    *,
    data: str | None,
    custom_op_libraries: tuple[Path, ...],
    use_library: bool,
    seed: int,
    as_text: bool,
) -> None:
    """Measure the damage of QUANTIZED against FLOAT, at the outputs and per layer.

    QUANTIZED may come from any tool, as long as its outputs have the same names. Exits with 3 if an output
    became NaN or infinite.
    """
    verdict = api.verify(
        reference, quantized, data=data, custom_op_libraries=custom_op_libraries, use_library=use_library, seed=seed
    )
    if as_text:
        click.echo(as_json(verdict), nl=False)
    else:
        print_verdict(verdict)
    if not verdict.finite:
        sys.exit(_MISSED_TARGET)
