"""The custom-op library: where it is, and how to hand it to a session of your own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from onnxq.errors import InstallationError

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["library_path", "register_ops"]

_NAMES = {"win32": "onnxq_ops.dll", "darwin": "libonnxq_ops.dylib"}


def library_path() -> Path:
    """Path of the shared library with onnxq's kernels.

    Raises:
        InstallationError: onnxq was installed without it.
    """
    import onnxq

    name = _NAMES.get(sys.platform, "libonnxq_ops.so")
    for folder in onnxq.__path__:  # an editable install has two: the sources and the built files
        candidate = Path(folder) / "lib" / name
        if candidate.is_file():
            return candidate
    raise InstallationError(
        f"the custom-op library {name} is not installed; reinstall onnxq where a C++ compiler is available"
    )


def register_ops(session_options: onnxruntime.SessionOptions) -> None:
    """Let a session run onnxq's packed operators with onnxq's own kernels.

    Args:
        session_options: of the session to be created.
    """
    session_options.register_custom_ops_library(str(library_path()))
