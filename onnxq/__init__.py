"""onnxq: post-training quantization for ONNX models that onnxruntime deploys.

    import onnxq
    report = onnxq.convert("model.onnx")

The command line and this module use the same words. Everything raised on purpose is an `OnnxqError`.
"""

from onnxq.api import convert, inspect, verify
from onnxq.errors import (
    DataError,
    InstallationError,
    ModelError,
    OnnxqError,
    OutputError,
    PlanError,
    PluginError,
    RecipeError,
    SessionError,
)
from onnxq.library import library_path, register_ops

__all__ = [
    # what it does
    "convert",
    "inspect",
    "verify",
    # the custom-op library
    "library_path",
    "register_ops",
    # errors
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
