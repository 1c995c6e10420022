"""`onnxq calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxq import collect
from onnxq.cli.options import FILE, custom_op_option, data_option, recipe_options, recipe_wishes
from onnxq.cli.progress import live_progress
from onnxq.evidence import Evidence

__all__ = ["calibrate"]

_MOST_REASONS = 10


@click.command()
@click.argument("model", type=FILE)
@click.option("-o", "--output", type=FILE, required=True, metavar="OUT.npz", help="Where to write.")
@recipe_options
@data_option
@click.option("--all-tensors", is_flag=True, help="Watch every activation, not only those that become codes.")
@click.option("--max-ram", metavar="SIZE", help="Memory for weights and fetched tensors, e.g. 2GB [128MiB of tensors].")
@custom_op_option
@click.option("--overwrite", is_flag=True, help="Replace an existing output.")
def calibrate(
    model: Path,
    output: Path,
    *,
    data: str | None,
    all_tensors: bool,
    max_ram: str | None,
    custom_op_libraries: tuple[Path, ...],
    overwrite: bool,
    **options: Any,
) -> None:
    """Observe the activations of MODEL and save what was seen, for convert --evidence.

    \b
    Examples:
      onnxq calibrate model.onnx --format qdq --data batches/ -o evidence.npz
      onnxq calibrate model.onnx --format qdq --data batches/ --calibrator percentile:99.99 -o evidence.npz

    Takes the options of convert: they decide which tensors are watched, and by what. Without --data, or with
    --data random, batches are made from the model alone.
    """
    recipe = recipe_wishes(options)
    with live_progress() as progress:
        evidence = collect.collect(
            model,
            output,
            recipe=recipe,
            data=data,
            every_tensor=all_tensors,
            custom_op_libraries=custom_op_libraries,
            max_ram=max_ram,
            overwrite=overwrite,
            progress=progress,
        )
    _print(evidence, output)


def _print(evidence: Evidence, output: Path) -> None:
    calibrators = sorted({seen.wish.calibrator for seen in evidence.observations.values()})
    click.echo(f"data     {evidence.data}")
    watched = f"{len(evidence.tensors)} tensors with {', '.join(calibrators) or 'nothing'}"
    click.echo(f"watched  {watched} over {evidence.batches} batches")
    masks = sum(seen.excluded for seen in evidence.observations.values())
    if masks:
        click.echo(f"masks    {masks} attention-mask values kept out")
    reasons = list(evidence.unobserved.items())
    for name, reason in reasons[:_MOST_REASONS]:
        click.echo(f"without  '{name}' {reason}")
    if len(reasons) > _MOST_REASONS:
        click.echo(f"without  {len(reasons) - _MOST_REASONS} more")
    if not evidence.tensors:
        click.echo("warning  the recipe makes no activation a code; try --format qdq or --all-tensors", err=True)
    click.echo(f"wrote    {output}")
