"""`onnxq inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxq import pipeline
from onnxq.cli.options import FILE, custom_op_option, recipe_options, recipe_wishes
from onnxq.cli.tables import print_plan
from onnxq.report import as_json

__all__ = ["inspect"]


@click.command()
@click.argument("model", type=FILE)
@recipe_options
@custom_op_option
@click.option("--json", "as_text", is_flag=True, help="Print JSON instead of tables.")
def inspect(model: Path, *, custom_op_libraries: tuple[Path, ...], as_text: bool, **options: Any) -> None:
    """What a conversion of MODEL would do with each weight, and why some would stay float.

    Takes the options of convert and changes nothing.
    """
    plan = pipeline.inspect_model(model, recipe=recipe_wishes(options), custom_op_libraries=custom_op_libraries)
    if as_text:
        click.echo(as_json(plan), nl=False)
    else:
        print_plan(model, plan)
