"""CUDA tests need nvcc and an x86-64 g++, no GPU. Without nvcc they are skipped, by name."""

import platform
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
# emulation.py, packed_nodes.py, build.py and ptx, benchmarks
sys.path[:0] = [str(p) for p in (HERE, HERE.parent, ROOT / "kernels" / "testing", ROOT)]


def pytest_configure(config):
    config.addinivalue_line("markers", "quick: the two-minute selection of the CUDA tests")


def _missing() -> str | None:
    from emulation import build

    if build.find_nvcc() is None:
        return "nvcc not found: set ONNXQ_NVCC, or install the CUDA toolkit"
    if shutil.which("g++") is None:
        return "g++ not found"
    if platform.machine() != "x86_64":
        return f"the emulator's context switch is written for x86-64, this is {platform.machine()}"
    return None


@pytest.hookimpl(tryfirst=True)  # before -m looks at the marks
def pytest_collection_modifyitems(items):
    """What is not quick is slow (`make test-all`, `make test-cuda`); without nvcc nothing here can run."""
    mine = [item for item in items if HERE in Path(item.fspath).parents]
    reason = _missing() if mine else None
    for item in mine:
        if item.get_closest_marker("quick") is None:
            item.add_marker(pytest.mark.slow)
        if reason is not None:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session", autouse=True)
def kernels(request):
    """Compiles and translates the variants that the selected tests name, two at a time."""
    from emulation import build

    if _missing() is not None:
        return
    here = [item for item in request.session.items if HERE in Path(item.fspath).parents]
    wanted = {item.callspec.params["variant"] for item in here
              if hasattr(item, "callspec") and "variant" in item.callspec.params}  # fmt: skip
    build.emulated_driver()  # all variants link to it
    with ThreadPoolExecutor(2) as pool:
        for _ in pool.map(build.emulated_kernels, sorted(wanted, key=lambda v: v.name)):
            pass
