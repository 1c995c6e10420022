"""Collect: `onnxq calibrate` from a model file to a file of evidence, for one or many conversions to come."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from onnxq.calibration import calibrate, float_activations
from onnxq.data_free import calibration_data
from onnxq.decide import needed_opset
from onnxq.errors import OutputError
from onnxq.evidence import Evidence, Wish
from onnxq.model import Model, load
from onnxq.normalise import normalise
from onnxq.plugin.parameters import check_calibrator
from onnxq.plugin.registry import load_registry
from onnxq.progress import Progress, Silent
from onnxq.qdq.outline import integer_layout
from onnxq.qdq.ranges import wishes_for
from onnxq.qdq.trained import Trained, lift_trained
from onnxq.recipe import Recipe
from onnxq.session import SessionOptions
from onnxq.sizes import parse_size
from onnxq.survey import survey_model

__all__ = ["collect"]


def collect(
    model: Path,
    output: Path,
    *,
    recipe: Recipe | None = None,
    data: str | None = None,
    every_tensor: bool = False,
    custom_op_libraries: Sequence[Path] = (),
    max_ram: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Evidence:
    """Calibrate a model file and write what was seen.

    Args:
        model: the float .onnx file.
        output: the .npz to write.
        recipe: decides what is watched, by which calibrator; defaults when None.
        data: batches (see onnxq.data); data-free ones when None or "random".
        every_tensor: watch every activation, not only those that the recipe makes codes of.
        custom_op_libraries: libraries that implement the model's custom operators.
        max_ram: memory that weights and fetched tensors may take, e.g. "2GB".
        overwrite: allow replacing an existing output.
        progress: told what is going on.
    Raises:
        OnnxqError: any of its kinds; nothing is written then.
    """
    recipe, progress = recipe or Recipe(), progress or Silent()
    _check_output(output, overwrite=overwrite)
    limit = None if max_ram is None else parse_size(max_ram)
    registry = load_registry()
    for name in (recipe.calibrator, *(rule.calibrator for rule in recipe.override if rule.calibrator)):
        check_calibrator(registry, name)
    loaded = load(model, custom_op_libraries=custom_op_libraries)
    lifted, trained = lift_trained(loaded)
    normalised = normalise(lifted, opset=needed_opset(recipe))
    wishes = _wishes(normalised, recipe, trained, every_tensor=every_tensor)
    options = SessionOptions(custom_op_libraries=loaded.custom_op_libraries)
    progress.stage("reading data", 1)
    progress.step(data or "none given")
    batches = calibration_data(data, loaded, options=options, seed=recipe.seed, state=recipe.state)
    progress.stage("calibrating", batches.count())
    evidence = calibrate(
        normalised,
        wishes,
        batches,
        registry,
        options=options,
        state=recipe.state,
        max_ram=limit,
        on_batch=lambda index: progress.step(f"batch {index}"),
    )
    evidence.save(output, overwrite=overwrite)
    return evidence


def _wishes(model: Model, recipe: Recipe, trained: Trained, *, every_tensor: bool) -> Sequence[Wish]:
    """What the recipe's plan needs; with `every_tensor` also all others, under the recipe's calibrator."""
    needed = wishes_for(integer_layout(model, survey_model(model), recipe, trained=trained), recipe, trained)
    if not every_tensor:
        return needed
    known = {wish.tensor for wish in needed}
    others = [Wish(name, recipe.calibrator) for name in float_activations(model) if name not in known]
    return [*needed, *others]


def _check_output(path: Path, *, overwrite: bool) -> None:
    """What can be wrong with the output is said before the work."""
    if path.suffix != ".npz":
        raise OutputError(f"{path}: evidence is written as .npz; e.g. -o {path.name}.npz")
    if path.exists() and not overwrite:
        raise OutputError(f"{path}: exists already; pass --overwrite or another name with -o")
    if not path.absolute().parent.is_dir():
        raise OutputError(f"{path}: its folder does not exist; create {path.absolute().parent} first")
