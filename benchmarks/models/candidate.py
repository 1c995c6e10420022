"""What a scorer is given: the model to judge, the float model it came from, and how to run them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import require
from .folder import ModelFolder

THREADS = 2
"""Enough to finish soon, few enough that timings of other work on the machine still mean something."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model under test.

    Attributes:
        model: the ONNX file to score.
        reference: the suite's own float file of the same model.
        folder: where text, images and speech lie.
        library: a custom-op library to register, or None for stock onnxruntime.
        limit: how many samples to use at most (tokens of a text, documents, crops, lines, frames);
            None takes as many as the published baselines were measured on.
    """

    model: Path
    reference: Path
    folder: ModelFolder
    library: Path | None = None
    limit: int | None = None

    def session(self) -> Any:
        """An onnxruntime session on the model under test."""
        return open_session(self.model, library=self.library)

    def reference_session(self) -> Any:
        """An onnxruntime session on the float model, without the custom-op library."""
        return open_session(self.reference)

    def at_most(self, count: int) -> int:
        """`count`, or the limit if that is lower."""
        return count if self.limit is None else min(count, self.limit)


@dataclass(frozen=True, slots=True)
class Score:
    """Base of what scorers return: a frozen dataclass of named numbers."""


def open_session(model: Path | bytes, *, library: Path | None = None) -> Any:
    """Open an `onnxruntime.InferenceSession` on the CPU with warnings off.

    Args:
        model: a file, or a serialized model without external data.
    """
    onnxruntime = require("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.log_severity_level = 3
    if library is not None:
        options.register_custom_ops_library(str(library))
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
