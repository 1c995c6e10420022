"""Equivalence: a normalised graph has to compute what the file computes, and here it is run to see that it does.

Rules of normalisation are proved by tests, but models are stranger than tests. What a rule breaks would otherwise be
taken for quantization damage.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from onnxq.model import Model
from onnxq.scratch import scratch_copy
from onnxq.session import Feed, Session, SessionOptions

__all__ = ["normalisation_changes"]

_TOLERANCE = {"f4": 1e-3, "f8": 1e-3, "f2": 5e-2}
"""Relative L2 error by float type. Normalised graphs differ from the file in the order of float sums only: about 1e-6 a
layer in float32 and 1e-3 in float16, growing with depth. A misplaced weight or bias gives 0.1 and more."""


def normalisation_changes(
    original: Model, normalised: Model, feeds: Sequence[Feed], options: SessionOptions
) -> list[str]:
    """What normalising changed at the outputs, in words; empty when nothing.

    Args:
        original: the model as loaded.
        normalised: made from it.
        feeds: batches to compare on.
        options: of both sessions, which are never open at the same time.
    Raises:
        SessionError: one of them does not load or run.
    """
    session = Session(original.path, options)
    names = session.outputs
    before = [session.run(feed) for feed in feeds]
    del session
    changes: dict[str, float] = {}
    with scratch_copy(normalised) as scratch:
        copy, _ = scratch.session(options, names)
        wanted = {spec.name for spec in copy.inputs}
        for feed, expected in zip(feeds, before, strict=True):
            got = copy.run({name: array for name, array in feed.items() if name in wanted}, names)
            for name in names:
                error = _relative_error(expected[name], got[name])
                if error is not None:
                    changes[name] = max(changes.get(name, 0.0), error)
    return [
        f"normalising the graph changed output '{name}' by {error:.1%} (relative L2): a bug in onnxq, please report it "
        "with the model; the damage includes it"
        for name, error in changes.items()
    ]


def _relative_error(expected: object, got: object) -> float | None:
    """Relative L2 error of one output when it is beyond its type's tolerance; None otherwise."""
    if not isinstance(expected, np.ndarray) or not isinstance(got, np.ndarray):
        return None
    kind = expected.dtype.str.lstrip("<>=|")
    if kind not in _TOLERANCE or expected.shape != got.shape:
        return None
    x: npt.NDArray[np.float64] = np.nan_to_num(expected.astype(np.float64))
    y: npt.NDArray[np.float64] = np.nan_to_num(got.astype(np.float64))
    norm = float(np.linalg.norm(x))
    error = float(np.linalg.norm(x - y)) / norm if norm > 0 else float(np.linalg.norm(y) > 0)
    return error if error > _TOLERANCE[kind] else None
