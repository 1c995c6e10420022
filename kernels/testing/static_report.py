"""What ptxas and the disassembler say about the kernels: the static gates of tests/kernels/cuda/test_cuda_static.py.

    python kernels/testing/static_report.py            print the table
    python kernels/testing/static_report.py --write    record it as kernels/cuda/budgets.json

Registers, shared memory and spills come from ptxas (nvcc alone). The instruction mix comes from nvdisasm, from
the CUDA toolkit or from the wheel nvidia-cuda-nvdisasm; without it those figures are absent.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import build

ARCHITECTURES = ("80", "86", "89", "90", "100", "120")
BUDGETS = build.KERNELS / "cuda" / "budgets.json"
# Compiled for every architecture; the other variants share their code and are checked on sm_80.
EVERYWHERE = ("half_4", "half_8", "bfloat16_4", "float_4", "half_codebook4", "float_codebook4")


@dataclass(frozen=True, slots=True)
class Loop:
    """The loop with the most tensor-core instructions of one kernel.

    A tile kernel's loop holds the copies of the next stage, then one version of the products for blocks of 16, of 32
    and of 64 and more, of which one runs: `before` is what comes ahead of the first shared read.
    """

    instructions: int
    before: int
    mma: int
    wide_loads: int  # global loads of 16 bytes a lane, cp.async included
    loads: int

    @property
    def wide_share(self) -> float:
        return self.wide_loads / self.loads if self.loads else 1.0


@dataclass(frozen=True, slots=True)
class Kernel:
    """One kernel on one architecture."""

    name: str  # "half_4_decode_p32"
    architecture: str
    registers: int
    shared: int  # static
    spills: int  # bytes stored and loaded
    loop: Loop | None

    def turn(self) -> float | None:
        """Instructions that one turn of the loop executes."""
        if self.loop is None or "decode" in self.name:
            return None if self.loop is None else self.loop.instructions
        return self.loop.before + (self.loop.instructions - self.loop.before) / 3

    def weights_per_instruction(self) -> float | None:
        """Decode only: an m16n8k16 takes 256 weights; float tokens take three products each, and six with codebooks."""
        if self.loop is None or "decode" not in self.name:
            return None
        parts = 1 if not self.name.startswith("float") else 6 if "codebook" in self.name else 3
        return 256 * self.loop.mma / parts / self.loop.instructions


def find_nvdisasm() -> str | None:
    """ONNXQ_NVDISASM, the PATH, the toolkit, or the wheel in this Python."""
    named = os.environ.get("ONNXQ_NVDISASM") or shutil.which("nvdisasm")
    if named:
        return named
    places = [Path("/usr/local/cuda/bin"), *(Path(p) / "nvidia" / "cu13" / "bin" for p in sys.path if p)]
    return next((str(p / "nvdisasm") for p in places if (p / "nvdisasm").exists()), None)


def measure(variant: build.Variant, architecture: str) -> list[Kernel]:
    """All kernels of a variant, compiled for one architecture."""
    cuda = build.KERNELS / "cuda"
    nvcc, nvdisasm = build.find_nvcc(), find_nvdisasm()
    # As cuda.cmake does it: machine code comes from the one PTX that the tests run, but for sm_120.
    virtual = architecture if int(architecture) >= 120 else "80"
    target = f"arch=compute_{virtual},code=sm_{architecture}"
    options = ["-std=c++17", "-O3", "-gencode", target, "-cubin", "-Xptxas", "-v"]
    files = [*build.sources(cuda, ".h"), *build.sources(cuda / "device", ".cu", ".cuh")]
    key = build.digest(*files, *options, str(nvdisasm))

    def make(folder: Path) -> None:
        source = cuda / "device" / "packed_ops.cu"
        said = build.run(nvcc, *options, *variant.defines, source, "-o", folder / "kernels.cubin")
        (folder / "ptxas.txt").write_text(said)
        (folder / "sass.txt").write_text(build.run(nvdisasm, "-c", folder / "kernels.cubin") if nvdisasm else "")

    folder = build.build_once(f"cubin-{variant.name}", key, make)
    loops = main_loops((folder / "sass.txt").read_text())
    return [
        Kernel(name, architecture, *numbers, loops.get(name))
        for name, numbers in resources((folder / "ptxas.txt").read_text()).items()
    ]


def resources(said: str) -> dict[str, tuple[int, int, int]]:
    """ptxas -v -> {kernel: (registers, static shared bytes, spilled bytes)}."""
    found = {}
    for part in said.split("Compiling entry function 'onnxq_")[1:]:
        name = part.split("'")[0]
        registers = int(re.search(r"Used (\d+) registers", part).group(1))
        shared = re.search(r"(\d+) bytes smem", part)
        spills = sum(int(n) for n in re.findall(r"(\d+) bytes spill", part))
        found[name] = registers, int(shared.group(1)) if shared else 0, spills
    return found


def main_loops(sass: str) -> dict[str, Loop]:
    """nvdisasm -c -> {kernel: its main loop}."""
    found = {}
    for part in re.split(r"\n//-+ \.text\.onnxq_", sass)[1:]:
        opcodes, labels, loops = [], {}, []
        for line in part.splitlines():
            if label := re.match(r"\s*(\.L_\w+):", line):
                labels[label.group(1)] = len(opcodes)
            elif m := re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)(.*);", line):
                target = re.search(r"`\((\.L_\w+)\)", m.group(2))
                if m.group(1).startswith("BRA") and target and target.group(1) in labels:
                    loops.append((labels[target.group(1)], len(opcodes)))
                opcodes.append(m.group(1))
        bodies = [opcodes[first : last + 1] for first, last in loops if first <= last]
        if bodies:
            body = max(bodies, key=lambda b: (sum(o.startswith("HMMA") for o in b), -len(b)))
            loads = [o for o in body if re.match(r"(LDG|LDGSTS)\b", o)]
            before = next((i for i, o in enumerate(body) if re.match(r"(LDS|HMMA)\b", o)), 0)
            found[part.split()[0]] = Loop(len(body), before, sum(o.startswith("HMMA") for o in body),
                                          sum(".128" in o for o in loads), len(loads))  # fmt: skip
    return found


def cases() -> list[tuple[build.Variant, str]]:
    return [
        (v, a) for v in build.all_variants() for a in (ARCHITECTURES if v.name in EVERYWHERE else ARCHITECTURES[:1])
    ]


def measure_all() -> list[Kernel]:
    with ThreadPoolExecutor(2) as pool:
        return [kernel for found in pool.map(lambda case: measure(*case), cases()) for kernel in found]


def budget_of(kernels: list[Kernel]) -> dict[str, dict[str, float]]:
    """By kernel: the worst of all its architectures; loop figures on sm_80."""
    budgets: dict[str, dict[str, float]] = {}
    for k in kernels:
        entry = budgets.setdefault(k.name, {"registers": 0, "shared": 0})
        entry["registers"] = max(entry["registers"], k.registers)
        entry["shared"] = max(entry["shared"], k.shared)
        if k.architecture == "80" and k.loop is not None and k.loop.mma:
            entry["wide_load_share"] = round(k.loop.wide_share, 3)
            entry["instructions_a_turn"] = round(k.turn())
            if (weights := k.weights_per_instruction()) is not None:
                entry["weights_per_instruction"] = round(weights, 2)
    return dict(sorted(budgets.items()))


def main() -> None:
    kernels = measure_all()
    if "--write" in sys.argv:
        BUDGETS.write_text(json.dumps(budget_of(kernels), indent=1) + "\n")
    for k in kernels:
        values = asdict(k) | {"weights_per_instruction": k.weights_per_instruction()}
        print(" ".join(f"{name}={value}" for name, value in values.items()))


if __name__ == "__main__":
    main()
