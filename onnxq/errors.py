"""Every error that onnxq raises on purpose: one tree, one line each, with the next step in the message.

A message says what went wrong, where, what was got and expected, and what to do next:
`MatMul '/fc': K=1000 is not a multiple of ...; use --block-size 8 or --skip /fc`.
"""

from __future__ import annotations

__all__ = [
    "DataError",
    "InstallationError",
    "ModelError",
    "OnnxqError",
    "OutputError",
    "PlanError",
    "PluginError",
    "RecipeError",
    "SessionError",
]


class OnnxqError(Exception):
    """The root: catching it catches everything onnxq raises on purpose."""


class ModelError(OnnxqError):
    """The model cannot be read or is not what ONNX says it should be.

    Usual causes: a truncated download, external data that was not copied along, a custom operator
    whose library was not given with `--custom-op-lib`.
    """


class DataError(OnnxqError):
    """Calibration or verification data does not fit the model's inputs.

    Usual causes: a missing or misnamed input, a wrong dtype or rank, NaN in a batch, an empty folder.
    """


class RecipeError(OnnxqError):
    """What the user asked for cannot be: an unknown name, a bad value, options that exclude each other."""


class PlanError(OnnxqError):
    """A site cannot be quantized as planned, e.g. its weight holds NaN or infinity."""


class PluginError(OnnxqError):
    """A plugin raised, returned nonsense, clashed with another, or implements a hook that does not exist."""


class OutputError(OnnxqError):
    """An output cannot be written. Nothing under the final name has been touched."""


class SessionError(OnnxqError):
    """onnxruntime refused to load or run a model."""


class InstallationError(OnnxqError):
    """The installation cannot work as it is, e.g. two onnxruntime distributions share one folder."""
