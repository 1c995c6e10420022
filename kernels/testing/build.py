"""Compile kernels to PTX, translate them, and build the emulated driver and the harness.

Everything lands in `build/cuda_testing/`, in folders named after a digest of their inputs, so that nothing is
built twice and a stale result is never used.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

TESTING = Path(__file__).resolve().parent
KERNELS = TESTING.parent
OUTPUT = KERNELS.parent / "build" / "cuda_testing"

sys.path.insert(0, str(TESTING))
from ptx import parse_module, translate  # noqa: E402

ELEMENTS = {"half": "kHalf", "bfloat16": "kBFloat16", "float": "kFloat"}
WIDTHS = (2, 3, 4, 5, 6, 8)
CODEBOOK_WIDTHS = (2, 3, 4)
HOST_SOURCES = (
    "device_weight.cc", "dispatch.cc", "driver.cc", "gather.cc", "matmul.cc", "modules.cc", "repack.cc",
)  # fmt: skip
_HOST_FLAGS = ("-std=c++20", "-O2", "-g1", "-fPIC", "-Wall", "-Wextra", "-Wshadow", "-Werror")


class BuildError(Exception):
    """A compiler refused; the message holds its output."""


@dataclass(frozen=True, slots=True)
class Variant:
    """The kernels of one activation type and one width of integers or codebook indices."""

    element: str
    bits: int
    codebook: bool = False

    @property
    def name(self) -> str:
        return f"{self.element}_{'codebook' * self.codebook}{self.bits}"

    @property
    def defines(self) -> tuple[str, ...]:
        return (
            f"-DONNXQ_MODULE={self.name}",
            f"-DONNXQ_ELEMENT={ELEMENTS[self.element]}",
            f"-DONNXQ_BITS={self.bits}",
            *(("-DONNXQ_CODEBOOK",) if self.codebook else ()),
        )


def all_variants() -> list[Variant]:
    """What cuda.cmake builds when it builds everything."""
    return [v for e in ELEMENTS for v in (*(Variant(e, b) for b in WIDTHS),
                                          *(Variant(e, b, codebook=True) for b in CODEBOOK_WIDTHS))]  # fmt: skip


def find_nvcc() -> str | None:
    """nvcc by ONNXQ_NVCC, on the PATH, or where CUDA is usually installed."""
    usual = Path("/usr/local/cuda/bin/nvcc")
    return os.environ.get("ONNXQ_NVCC") or shutil.which("nvcc") or (str(usual) if usual.exists() else None)


def run(*command: str | Path) -> str:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise BuildError(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def digest(*parts: str | bytes | Path) -> str:
    """Of texts and of files' contents."""
    h = hashlib.sha256()
    for part in parts:
        h.update(part.read_bytes() if isinstance(part, Path) else part.encode() if isinstance(part, str) else part)
        h.update(b"\0")
    return h.hexdigest()[:16]


def sources(folder: Path, *suffixes: str) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.suffix in suffixes)


def build_once(kind: str, key: str, make) -> Path:
    """The folder `kind-key`, filled by make(folder) unless it is there already. Atomic."""
    folder = OUTPUT / f"{kind}-{key}"
    if folder.exists():
        return folder
    OUTPUT.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{kind}-", dir=OUTPUT))
    try:
        make(scratch)
    except BuildError:
        shutil.rmtree(scratch)
        raise
    try:
        scratch.rename(folder)
    except OSError:  # somebody else was faster
        shutil.rmtree(scratch)
    return folder


def emulated_driver() -> Path:
    """libonnxq_emulated_cuda.so: the emulator behind the names of the CUDA driver."""
    files = sources(TESTING / "emulator", ".cc", ".h")

    def make(folder: Path) -> None:
        run("g++", *_HOST_FLAGS, "-shared", f"-I{TESTING}", *[f for f in files if f.suffix == ".cc"],
            "-o", folder / "libonnxq_emulated_cuda.so", "-ldl")  # fmt: skip

    return build_once("driver", digest(*files), make) / "libonnxq_emulated_cuda.so"


def harness() -> Path:
    """libharness.so around the library's own host code; ONNXQ_CUDA_DRIVER says which driver it loads.

    Its images are empty where the driver is the emulated one. With ONNXQ_TEST_ARCHITECTURE (a number like 90) it
    holds real fatbins for that compute capability: gpu_check's case.
    """
    architecture = os.environ.get("ONNXQ_TEST_ARCHITECTURE")
    files = [KERNELS / "cuda" / name for name in HOST_SOURCES] + [TESTING / "harness.cc"]
    files.append(_images(architecture) if architecture else TESTING / "no_images.cc")
    headers = [*sources(KERNELS / "cuda", ".h"), KERNELS / "cpu" / "half.h", KERNELS / "error.h"]

    def make(folder: Path) -> None:
        run("g++", *_HOST_FLAGS, "-DONNXQ_CUDA_EMULATED", "-shared", f"-I{KERNELS}", *files,
            "-o", folder / "libharness.so", "-ldl")  # fmt: skip

    return build_once("harness", digest(*files, *headers), make) / "libharness.so"


def _images(architecture: str) -> Path:
    """images.cc with the fatbins of every variant for one compute capability."""
    cuda = KERNELS / "cuda"
    variants = all_variants()

    def make(folder: Path) -> None:
        final = OUTPUT / f"images-{key}"  # where the folder will be when g++ reads it
        text = '#include "cuda/modules.h"\n'
        for v in variants:
            run(find_nvcc(), "-std=c++17", "-O3", "-fatbin", f"-arch=sm_{architecture}", *v.defines,
                cuda / "device" / "packed_ops.cu", "-o", folder / f"{v.name}.fatbin")  # fmt: skip
            text += (
                f'asm(".section .rodata\\n.balign 16\\n.global image_{v.name}\\nimage_{v.name}:\\n"\n'
                f'    ".incbin \\"{final}/{v.name}.fatbin\\"\\n.previous\\n");\n'
                f'extern "C" const unsigned char image_{v.name}[];\n'
            )
        entries = ", ".join(f'{{"{v.name}", image_{v.name}}}' for v in variants)
        text += f"namespace onnxq::cuda {{\nconst Image kImages[] = {{{entries}, {{nullptr, nullptr}}}};\n}}\n"
        (folder / "images.cc").write_text(text)

    key = digest(*sources(cuda, ".h"), *sources(cuda / "device", ".cu", ".cuh"), architecture)
    return build_once("images", key, make) / "images.cc"


def library(modules: tuple[Variant, ...], *, emulated: bool) -> Path:
    """libonnxq_ops.so of this checkout with the CUDA kernels of `modules` for sm_80 and PTX."""
    files = [*sources(KERNELS, ".cc", ".h", ".cu", ".cuh", ".cmake"), KERNELS / "CMakeLists.txt"]
    files = [f for f in files if TESTING not in f.parents]
    names = ";".join(v.name for v in modules)

    def make(folder: Path) -> None:
        run("cmake", "-S", KERNELS, "-B", folder, "-G", "Ninja", "-DONNXQ_CUDA=ON", f"-DONNXQ_CUDA_MODULES={names}",
            "-DONNXQ_CUDA_ARCHITECTURES=80", f"-DONNXQ_CUDA_EMULATED={'ON' if emulated else 'OFF'}")  # fmt: skip
        run("cmake", "--build", folder)

    return build_once("library", digest(*files, names, str(emulated)), make) / "libonnxq_ops.so"


def kernel_folder(modules: tuple[Variant, ...]) -> Path:
    """One folder with the translated kernels of several variants: what the emulated driver is pointed at."""
    built = [emulated_kernels(v) for v in modules]

    def make(folder: Path) -> None:
        for path in built:
            (folder / path.name).symlink_to(path)

    return build_once("kernels", digest(*map(str, built)), make)


def ptx(variant: Variant, *, cuda: Path = KERNELS / "cuda") -> Path:
    """The PTX of a variant, from the kernel sources in `cuda` (a copy of kernels/cuda for planted bugs)."""
    files = [*sources(cuda, ".h"), *sources(cuda / "device", ".cu", ".cuh")]

    def make(folder: Path) -> None:
        nvcc = find_nvcc()
        if nvcc is None:
            raise BuildError("nvcc not found")
        run(nvcc, "-std=c++17", "-O3", "-arch=compute_80", "-ptx", *variant.defines,
            cuda / "device" / "packed_ops.cu", "-o", folder / f"{variant.name}.ptx")  # fmt: skip

    return build_once(f"ptx-{variant.name}", digest(*files), make) / f"{variant.name}.ptx"


def emulated_kernels(variant: Variant, *, cuda: Path = KERNELS / "cuda") -> Path:
    """<variant>.so: the translated PTX, for the emulated driver."""
    return emulated_module(variant.name, ptx(variant, cuda=cuda).read_text())


def emulated_module(name: str, text: str) -> Path:
    """<name>.so from the text of a PTX module; its kernels are called onnxq_<name>_..."""
    driver = emulated_driver()
    translator = [*sources(TESTING / "ptx", ".py"), TESTING / "emulator" / "kernel_abi.h",
                  TESTING / "emulator" / "semantics.h"]  # fmt: skip

    def make(folder: Path) -> None:
        code = folder / f"{name}.cc"
        code.write_text(translate(parse_module(text), source=f"{name}.ptx"))
        # -O1: registers live in arrays, so there is little to optimise and much to compile.
        run("g++", "-std=c++20", "-O1", "-fPIC", "-w", "-shared", f"-I{TESTING}", code, driver,
            f"-Wl,-rpath,{driver.parent}", "-o", folder / f"{name}.so")  # fmt: skip

    return build_once(f"emulated-{name}", digest(text, *translator, str(driver)), make) / f"{name}.so"
