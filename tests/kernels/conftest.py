"""The library under test: the installed one, or one built here from `kernels/`."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "kernels"


def _installed() -> Path | None:
    try:
        import onnxq
    except ImportError:
        return None
    try:
        return onnxq.library_path()
    except onnxq.OnnxqError:  # the package without its library: an uninstalled checkout
        return None


def _build() -> Path:
    subprocess.run(["cmake", "-S", ROOT / "kernels", "-B", BUILD, "-G", "Ninja"], check=True, capture_output=True)
    subprocess.run(["cmake", "--build", BUILD], check=True, capture_output=True)
    return BUILD / "libonnxq_ops.so"


@pytest.fixture(scope="session")
def library() -> str:
    """Path of libonnxq_ops. ONNXQ_TEST_LIBRARY names another build (sanitizers, for example)."""
    named = os.environ.get("ONNXQ_TEST_LIBRARY")
    return str(Path(named).resolve() if named else _installed() or _build())
