"""The Python API: `onnxq.convert`, `onnxq.inspect`, `onnxq.verify`, with the same words as the command line."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from onnxq.batches import feeds_for
from onnxq.decide import Plan
from onnxq.model import load
from onnxq.pipeline import convert as _convert
from onnxq.pipeline import inspect_model
from onnxq.recipe import Override, Recipe, parse_override, recipe_from, recipe_from_file
from onnxq.report import ConvertReport
from onnxq.session import SessionOptions
from onnxq.upcast import runnable_pair
from onnxq.verification import Verdict, verify_files

__all__ = ["convert", "inspect", "verify"]

PathLike = str | os.PathLike[str]


def convert(
    model: PathLike,
    output: PathLike | None = None,
    *,
    data: PathLike | None = None,
    evidence: PathLike | None = None,
    recipe: PathLike | Recipe | Mapping[str, Any] | None = None,
    custom_op_libraries: Sequence[PathLike] = (),
    report: PathLike | None = None,
    bench: bool = False,
    max_ram: str | None = None,
    overwrite: bool = False,
    **wishes: Any,
) -> ConvertReport:
    """Quantize a model file; see `onnxq convert --help`.

    Args:
        model: the float .onnx file.
        output: default `NAME.onnxq.onnx` beside the model.
        data: batches to calibrate and verify on; synthetic ones when None.
        evidence: ranges of activations from `onnxq calibrate`, instead of calibrating here.
        recipe: a TOML file, a Recipe or a mapping of its fields; `wishes` are laid over it.
        custom_op_libraries: libraries for the model's custom operators.
        report: a .json file for the full report.
        bench: measure latency.
        max_ram: memory that running both models may take, e.g. "8GB".
        overwrite: allow replacing an existing output.
        **wishes: fields of Recipe: format, bits, block_size, symmetric, table_bits, target_bpw, target_size, method,
            activation_bits, activation_signed, activation_symmetric, per_channel, calibrator, reduce_range,
            integer_nodes, target, compute, skip, override (as `REGEX=key:value` strings or Override values), state,
            seed. One skip or override may stand alone.
    Raises:
        OnnxqError: with what, where and what to do next; nothing is written then.
    """
    return _convert(
        Path(model),
        None if output is None else Path(output),
        recipe=_recipe(recipe, wishes),
        data=_data(data),
        evidence=None if evidence is None else Path(evidence),
        custom_op_libraries=[Path(library) for library in custom_op_libraries],
        report=None if report is None else Path(report),
        bench=bench,
        max_ram=max_ram,
        overwrite=overwrite,
    )


def inspect(
    model: PathLike,
    *,
    recipe: PathLike | Recipe | Mapping[str, Any] | None = None,
    custom_op_libraries: Sequence[PathLike] = (),
    **wishes: Any,
) -> Plan:
    """What a conversion would do with each weight; see `onnxq inspect --help`."""
    libraries = [Path(library) for library in custom_op_libraries]
    return inspect_model(Path(model), recipe=_recipe(recipe, wishes), custom_op_libraries=libraries)


def verify(
    reference: PathLike,
    quantized: PathLike,
    *,
    data: PathLike | None = None,
    custom_op_libraries: Sequence[PathLike] = (),
    use_library: bool = False,
    seed: int = 0,
) -> Verdict:
    """Damage of a quantized model against the float one; see `onnxq verify --help`.

    Args:
        reference: the float model.
        quantized: made from it by any tool that keeps output names.
        data: batches; synthetic ones when None.
        custom_op_libraries: for custom operators in either.
        use_library: run onnxq's kernels instead of stock onnxruntime's.
        seed: of synthetic batches.
    """
    libraries = tuple(Path(library) for library in custom_op_libraries)
    load(Path(reference), custom_op_libraries=libraries), load(Path(quantized), custom_op_libraries=libraries)
    with runnable_pair(Path(reference), Path(quantized)) as (float_path, quantized_path, note):
        model = load(float_path, custom_op_libraries=libraries)
        options = SessionOptions(custom_op_libraries=model.custom_op_libraries, use_library=use_library)
        feeds, _, description = feeds_for(model, _data(data), seed=seed, options=options)
        return verify_files(float_path, quantized_path, feeds, data=description + note, options=options)


def _data(data: PathLike | None) -> str | None:
    return None if data is None else os.fspath(data)


def _recipe(recipe: PathLike | Recipe | Mapping[str, Any] | None, wishes: Mapping[str, Any]) -> Recipe:
    wishes = _spelled_out(wishes)
    if isinstance(recipe, Recipe):
        return recipe_from(**{**recipe.model_dump(exclude_unset=True), **wishes})
    if isinstance(recipe, Mapping):
        return recipe_from(**{**_spelled_out(recipe), **wishes})
    return recipe_from(**wishes) if recipe is None else recipe_from_file(Path(recipe), **wishes)


def _spelled_out(wishes: Mapping[str, Any]) -> dict[str, Any]:
    """Wishes with one skip or override made a tuple, and overrides parsed where they are text.

    What is neither text nor an Override is left for the recipe to check or refuse.
    """
    result = {str(key): value for key, value in wishes.items() if value is not None}
    for key in ("skip", "override"):
        if isinstance(result.get(key), (str, Override)):
            result[key] = (result[key],)
    if isinstance(rules := result.get("override"), Sequence):
        result["override"] = tuple(parse_override(rule) if isinstance(rule, str) else rule for rule in rules)
    return result
