"""cpu_check, the native test of the CPU kernels: plain, under sanitizers, and on an emulated aarch64."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


def build(name: str, *options: str) -> Path:
    """The program of a build folder of its own, build/check-NAME."""
    folder = ROOT / "build" / f"check-{name}"
    configure = ["cmake", "-S", ROOT / "kernels", "-B", folder, "-G", "Ninja", "-DONNXQ_CPU_CHECK=ON", *options]
    subprocess.run(configure, check=True, capture_output=True)
    done = subprocess.run(["cmake", "--build", folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:]
    return folder / "cpu_check"


def passes(*command, **environment) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout


def test_every_instruction_set_equals_the_scalar_kernels():
    assert "200 passed, 0 failed" in passes(build("plain", "-DONNXQ_WERROR=ON"), "200")


@pytest.mark.parametrize(
    ("name", "flags", "cases"), [("address", "address,undefined", "100"), ("thread", "thread", "30")]
)
def test_sanitizers_find_nothing(name, flags, cases):
    program = build(name, f"-DONNXQ_SANITIZE={flags}")
    passes(program, cases, UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1", TSAN_OPTIONS="halt_on_error=1")


def test_neon_equals_the_scalar_kernels_under_qemu():
    compiler, emulator = "aarch64-linux-gnu-g++", "qemu-aarch64"
    for tool, package in ((compiler, "g++-aarch64-linux-gnu"), (emulator, "qemu-user")):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool} on this machine: install {package}")
    system = ["-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64", f"-DCMAKE_CXX_COMPILER={compiler}"]
    program = build("aarch64", *system)
    answer = passes(emulator, "-L", "/usr/aarch64-linux-gnu", program, "100")
    assert "checked neon" in answer
    assert "100 passed, 0 failed" in answer
