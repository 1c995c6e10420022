"""The two limits that every kernel is held against, measured here and now."""

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("peaks.cc")


@dataclass(frozen=True)
class Machine:
    """One thread's measured limits."""

    read_gb_per_s: float
    int8_gops: float


def measure() -> Machine | None:
    """None where peaks.cc cannot be compiled (no compiler, or not x86-64)."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "peaks"
        command = ["c++", "-O3", "-std=c++20", "-march=native", str(SOURCE), "-o", str(program)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        answer = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    bandwidth, operations = answer.split()
    return Machine(float(bandwidth), float(operations))
