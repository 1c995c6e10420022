"""Errors of the model suite, and the one place that imports the optional packages of the `models` extra."""

from __future__ import annotations

import importlib
from types import ModuleType


class SuiteError(Exception):
    """Something the caller can put right: a missing package, an unknown name, a file not fetched yet."""


def require(module: str) -> ModuleType:
    """Import a module of the `models` extra, or say how to install it.

    Heavy packages are imported where they are used and never at import time, so that fetching a model
    needs only what that model needs.

    Args:
        module: dotted module name, e.g. "sklearn.linear_model".
    Raises:
        SuiteError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = module.partition(".")[0]
        raise SuiteError(f"this needs the Python package {missing!r}: pip install 'onnxq[models]'") from error
