"""Obstacles: what keeps the two models from being compared, found before any weight is quantized.

1. The float model does not load here, or the data does not fit it: an error, at once.
2. An input cannot be fed from numpy (a sequence, a map, an optional): converted, not measured; the report says so.
3. Both models together take more memory than was allowed: likewise.
"""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from onnxq.data import open_data
from onnxq.data_free import RANDOM
from onnxq.model import Model, all_initializers
from onnxq.recipe import Recipe
from onnxq.session import Session, SessionOptions
from onnxq.sizes import size_text
from onnxq.state import state_pairs
from onnxq.upcast import needs_upcast

__all__ = ["size_on_disk", "too_large", "unmeasurable"]


def unmeasurable(model: Model, data: str | None, recipe: Recipe, *, limit: int | None) -> str | None:
    """Open the float model and the data (cases 1 and 2); the session is released again.

    Args:
        model: as loaded.
        data: the --data argument; its first batch is read.
        recipe: names inputs that batches may leave out.
        limit: bytes that running models may take; a float model above it is not opened. No limit when None.
    Returns:
        Why nothing can be measured (case 2), or None. None too where nothing was opened: a bfloat16 model runs as a
        copy in float32, and one above the limit not at all.
    Raises:
        SessionError: onnxruntime refuses the model or a custom operator library.
        DataError: the data does not exist or its first batch does not fit.
    """
    if (limit is not None and size_on_disk(model.path) > limit) or needs_upcast(model.path):
        return None
    session = Session(model.path, SessionOptions(custom_op_libraries=model.custom_op_libraries))
    if session.unfed:
        name, kind = session.unfed[0]
        return (
            f"not measured: input '{name}' has type {kind}, which cannot be fed from numpy; "
            "compare the models in the program that feeds it"
        )
    if data is not None and data != RANDOM:
        open_data(data, session.inputs, state_inputs=set(state_pairs(model.ir.graph, recipe.state).values()))
    return None


def too_large(model: Path, written: Path, limit: int | None) -> str | None:
    """Why both models cannot be run here (case 3); None when they can."""
    if limit is None:
        return None
    needed = size_on_disk(model) + size_on_disk(written)
    if needed <= limit:
        return None
    return (
        f"not measured: both models take {size_text(needed)} and --max-ram allows {size_text(limit)}; "
        "run onnxq verify where there is more memory"
    )


def size_on_disk(path: Path) -> int:
    """Bytes of a model file and of all files of external data that it refers to."""
    files = {path.absolute()}
    for value in all_initializers(ir.load(path)):
        if isinstance(value.const_value, ir.ExternalTensor):
            files.add(Path(value.const_value.path).absolute())
    return sum(file.stat().st_size for file in files)
