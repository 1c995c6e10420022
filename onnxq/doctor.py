"""Doctor: what this installation and this machine can do, and what is wrong with them, as plain facts.

Nothing here raises: a part that cannot be asked is a fact with state BROKEN, and the next part is asked all the same.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata

from onnxq.errors import InstallationError, OnnxqError
from onnxq.library import library_path
from onnxq.plugin.registry import find_plugins
from onnxq.processor import saturates
from onnxq.session import check_installation, execution_providers, registration_error

__all__ = ["Fact", "State", "examine"]


class State(StrEnum):
    """How bad a fact is; only BROKEN makes `onnxq doctor` fail."""

    OK = "ok"
    NOTE = "note"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of the answer.

    Attributes:
        topic: what was asked, e.g. "instruction set".
        value: the answer.
        state: OK; NOTE (works, but not as well as it could, or not by default); BROKEN.
        fix: the next step; empty where there is nothing to do.
    """

    topic: str
    value: str
    state: State = State.OK
    fix: str = ""


_PACKAGES = ("numpy", "onnx", "onnx-ir")

_CUDA_DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"


def examine(environment: Mapping[str, str] = os.environ) -> tuple[Fact, ...]:
    """Every fact, in the order in which they should be read.

    Args:
        environment: variables to look for settings in. The library reads the process's own.
    """
    return (
        *_versions(),
        *_onnxruntime(),
        *_library(environment),
        *_processor(environment),
        *_plugins(),
    )


def _versions() -> Iterator[Fact]:
    yield Fact("onnxq", metadata.version("onnxq"))
    yield Fact("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    for name in _PACKAGES:
        yield _package(name)


def _package(name: str) -> Fact:
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Fact(name, "not installed", State.BROKEN, f"pip install {name}")
    return _new_enough(name, version, name)


def _new_enough(topic: str, version: str, distribution: str) -> Fact:
    """A version, held against what onnxq's own metadata asks for."""
    for requirement in metadata.requires("onnxq") or ():
        found = re.match(r"([\w.-]+?)\s*>=\s*([\d.]+)", requirement)
        if found and found[1] == distribution and _numbers(version) < _numbers(found[2]):
            fix = f"pip install --upgrade {distribution}"
            return Fact(topic, f"{version}, older than the {found[2]} that onnxq needs", State.BROKEN, fix)
    return Fact(topic, version)


def _numbers(version: str) -> tuple[int, ...]:
    """(1, 31, 0) of "1.31.0.dev2": the numbers before the first part that is none."""
    return tuple(int(part) for part in re.match(r"[\d.]*", version)[0].split(".") if part)  # type: ignore[index]


def _onnxruntime() -> Iterator[Fact]:
    try:
        version = check_installation()
    except InstallationError as error:
        value, fix = _parts(error)
        yield Fact("onnxruntime", value, State.BROKEN, fix)
        return
    yield _new_enough("onnxruntime", version, "onnxruntime")
    try:
        yield Fact("execution providers", ", ".join(execution_providers()))
    except Exception as error:  # noqa: BLE001  # an extension module that does not load may raise anything
        fix = "pip install --force-reinstall the onnxruntime distribution that is listed by pip list"
        yield Fact("execution providers", f"onnxruntime cannot be imported: {_one_line(error)}", State.BROKEN, fix)


def _library(environment: Mapping[str, str]) -> Iterator[Fact]:
    try:
        path = str(library_path())
    except InstallationError as error:
        value, fix = _parts(error)
        yield Fact("custom-op library", f"{value}: packed models run on stock onnxruntime only", State.NOTE, fix)
        return
    try:
        library = ctypes.CDLL(path)
    except OSError as error:
        fix = "reinstall onnxq on this machine: pip install --force-reinstall --no-deps --no-binary onnxq onnxq"
        yield Fact("custom-op library", f"{path} cannot be loaded: {_one_line(error)}", State.BROKEN, fix)
        return
    yield Fact("custom-op library", path)
    isa = _isa(_answer(library, "onnxq_isa"), environment.get("ONNXQ_ISA", ""))
    yield isa
    if isa.state is not State.BROKEN:  # else registering repeats the same complaint
        yield from _registration()
    yield from _cuda(_answer(library, "onnxq_cuda"))


def _answer(library: ctypes.CDLL, name: str) -> str:
    """What an exported question of the library answers."""
    function = getattr(library, name, None)
    if function is None:
        return f"error: the library has no {name}, so it is older than this onnxq"
    function.restype = ctypes.c_char_p
    return str(function().decode())


def _isa(answer: str, forced: str) -> Fact:
    if answer.startswith("error: "):
        fix = "unset ONNXQ_ISA" if forced else "reinstall onnxq"
        return Fact("instruction set", answer.removeprefix("error: "), State.BROKEN, fix)
    if forced:
        return Fact("instruction set", f"{answer}, forced by ONNXQ_ISA", State.NOTE, "unset ONNXQ_ISA for the fastest")
    if answer == "scalar":
        return Fact("instruction set", "scalar: no kernels for this processor, only the readable ones", State.NOTE)
    return Fact("instruction set", answer)


def _registration() -> Iterator[Fact]:
    """A fact only where onnxruntime refuses the library."""
    try:
        error = registration_error()
    except OnnxqError:  # said already, by the facts about onnxruntime
        return
    if error:
        fix = "upgrade onnxruntime, or reinstall onnxq for this machine"
        yield Fact("registration", f"onnxruntime refuses the library: {error}", State.BROKEN, fix)


def _cuda(answer: str) -> Iterator[Fact]:
    if answer.startswith(("none", "error")):
        yield Fact("CUDA kernels", answer, fix="for a GPU: reinstall onnxq where nvcc is found")
        return
    yield Fact("CUDA kernels", answer)
    try:
        ctypes.CDLL(_CUDA_DRIVER)
    except OSError:
        fix = "for a GPU: install its driver"
        yield Fact("CUDA driver", f"{_CUDA_DRIVER} cannot be loaded: everything runs on the CPU", State.NOTE, fix)
        return
    yield Fact("CUDA driver", f"{_CUDA_DRIVER} loads")


def _processor(environment: Mapping[str, str]) -> Iterator[Fact]:
    if saturates():
        yield Fact("int8 networks", "sums saturate on this processor (no VNNI), so weights get 7 bits", State.NOTE)
    else:
        yield Fact("int8 networks", "exact sums, weights get 8 bits")
    kernel = environment.get("OPENBLAS_CORETYPE")
    if kernel:
        value = f"OPENBLAS_CORETYPE={kernel} forces numpy's matrix products"
        fix = "unset OPENBLAS_CORETYPE: a kernel that this processor lacks crashes gptq, an old one slows it down"
        yield Fact("numpy's BLAS", value, State.NOTE, fix)


def _plugins() -> Iterator[Fact]:
    registry, problems = find_plugins()
    families: dict[str, list[str]] = {}
    for plugin in registry.all():
        origin = f"{plugin.distribution} {plugin.version}".rstrip()
        stranger = "" if origin.startswith("onnxq ") else f" ({origin})"
        families.setdefault(f"{plugin.family}s", []).append(plugin.name + stranger)
    for family, names in families.items():
        yield Fact(family, ", ".join(names))
    for problem in problems:
        value, fix = _parts(problem)
        yield Fact("plugin", value, State.BROKEN, fix)


def _parts(error: OnnxqError) -> tuple[str, str]:
    """What is wrong, and the next step, which our messages have at their end."""
    problem, found, step = str(error).rpartition("; ")
    return (problem, step) if found else (step, "")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
