"""Doctor: each thing that can be wrong is one broken fact with its fix, and the other facts still come."""

from importlib import metadata
from types import SimpleNamespace

import pytest

from onnxq import doctor
from onnxq.doctor import Fact, State
from onnxq.errors import InstallationError
from onnxq.plugin import registry as registry_module

VERSIONS = {"onnxq": "0.1.0", "numpy": "2.1.0", "onnx": "1.20.0", "onnx-ir": "1.0.1"}


class Library:
    """Stands for a loaded library: exports what it is given."""

    def __init__(self, **answers: str) -> None:
        for name, answer in answers.items():
            setattr(self, name, lambda answer=answer: answer.encode())


@pytest.fixture
def machine(monkeypatch):
    """A healthy installation; a test breaks one part of it and examines again."""
    healthy = SimpleNamespace(
        versions=dict(VERSIONS),
        library=Library(onnxq_isa="avx512vnni", onnxq_cuda="compute capabilities 80 and PTX"),
        driver=Library(),
    )

    def version(name):
        if name not in healthy.versions:
            raise metadata.PackageNotFoundError(name)
        return healthy.versions[name]

    def load(path):
        loaded = healthy.library if path == "ops.so" else healthy.driver
        if isinstance(loaded, OSError):
            raise loaded
        return loaded

    requirements = ["numpy>=2.0", "onnx>=1.20", "onnx-ir>=1.0", 'onnxruntime>=1.30; sys_platform != "linux"']
    fake = SimpleNamespace(
        version=version, requires=lambda name: requirements, PackageNotFoundError=metadata.PackageNotFoundError
    )
    monkeypatch.setattr(doctor, "metadata", fake)
    monkeypatch.setattr(doctor, "check_installation", lambda: "1.31.0")
    monkeypatch.setattr(doctor, "execution_providers", lambda: ("CUDAExecutionProvider", "CPUExecutionProvider"))
    monkeypatch.setattr(doctor, "registration_error", lambda: "")
    monkeypatch.setattr(doctor, "library_path", lambda: "ops.so")
    monkeypatch.setattr(doctor.ctypes, "CDLL", load)
    monkeypatch.setattr(doctor, "saturates", lambda: False)
    return healthy


def facts(environment=None) -> dict[str, Fact]:
    return {fact.topic: fact for fact in doctor.examine(environment or {})}


def broken(found: dict[str, Fact]) -> list[str]:
    return [topic for topic, fact in found.items() if fact.state is State.BROKEN]


def test_a_healthy_machine_has_nothing_to_fix(machine):
    found = facts()
    assert {fact.state for fact in found.values()} == {State.OK}
    assert found["instruction set"].value == "avx512vnni"
    assert found["onnxruntime"].value == "1.31.0"
    assert found["CUDA driver"].value.endswith("loads")
    assert "rtn" in found["weight quantizers"].value
    assert not any(fact.fix for fact in found.values())


@pytest.mark.parametrize(
    ("name", "version", "value"),
    [
        ("numpy", "1.26.4", "1.26.4, older than the 2.0 that onnxq needs"),
        ("onnx", "1.9.0", "1.9.0, older than the 1.20 that onnxq needs"),
        ("onnx-ir", "0.1.16", "0.1.16, older than the 1.0 that onnxq needs"),
    ],
)
def test_an_old_package_is_named_with_what_is_needed(machine, name, version, value):
    machine.versions[name] = version
    found = facts()
    assert broken(found) == [name]
    assert (found[name].value, found[name].fix) == (value, f"pip install --upgrade {name}")


@pytest.mark.parametrize("version", ["2.0", "2.0.1rc1", "10.0", "2.1.dev0+g1234"])
def test_versions_are_compared_as_numbers(machine, version):
    machine.versions["numpy"] = version
    assert broken(facts()) == []


def test_an_old_onnxruntime_is_held_against_our_own_requirement(machine, monkeypatch):
    monkeypatch.setattr(doctor, "check_installation", lambda: "1.9.1")
    assert broken(facts()) == ["onnxruntime"]


def test_a_missing_package(machine):
    del machine.versions["onnx-ir"]
    assert facts()["onnx-ir"] == Fact("onnx-ir", "not installed", State.BROKEN, "pip install onnx-ir")


def test_two_onnxruntimes_are_broken_and_the_rest_is_still_told(machine, monkeypatch):
    def clash():
        raise InstallationError("a and b are both installed; pip uninstall a b, then install one")

    monkeypatch.setattr(doctor, "check_installation", clash)
    monkeypatch.setattr(doctor, "registration_error", clash)
    found = facts()
    assert broken(found) == ["onnxruntime"]
    assert found["onnxruntime"].fix == "pip uninstall a b, then install one"
    assert found["instruction set"].value == "avx512vnni"


def test_an_onnxruntime_that_cannot_be_imported(machine, monkeypatch):
    def fails():
        raise ImportError("libstdc++.so.6:\n version not found")

    monkeypatch.setattr(doctor, "execution_providers", fails)
    found = facts()
    assert broken(found) == ["execution providers"]
    assert "libstdc++.so.6: version not found" in found["execution providers"].value


def test_no_library_is_no_fault_but_says_how_to_get_it(machine, monkeypatch):
    def absent():
        raise InstallationError("libonnxq_ops.so is not installed; reinstall onnxq where a C++ compiler is available")

    monkeypatch.setattr(doctor, "library_path", absent)
    found = facts()
    assert broken(found) == []
    assert found["custom-op library"].state is State.NOTE
    assert "C++ compiler" in found["custom-op library"].fix
    assert "instruction set" not in found


def test_a_library_that_does_not_load_is_broken(machine):
    machine.library = OSError("GLIBC_2.99 not found")
    found = facts()
    assert broken(found) == ["custom-op library"]
    assert "GLIBC_2.99 not found" in found["custom-op library"].value


def test_an_older_library_without_the_question_is_broken(machine):
    machine.library = Library(onnxq_cuda="none: built without nvcc")
    assert "has no onnxq_isa" in facts()["instruction set"].value


def test_a_wrong_isa_is_broken_and_a_right_one_is_noted(machine):
    assert facts({"ONNXQ_ISA": "avx512vnni"})["instruction set"].state is State.NOTE
    machine.library = Library(onnxq_isa="error: ONNXQ_ISA=neon is not supported", onnxq_cuda="none: x")
    found = facts({"ONNXQ_ISA": "neon"})
    assert broken(found) == ["instruction set"]
    assert found["instruction set"].value == "ONNXQ_ISA=neon is not supported"
    assert found["instruction set"].fix == "unset ONNXQ_ISA"


def test_a_library_that_onnxruntime_refuses_is_broken(machine, monkeypatch):
    monkeypatch.setattr(doctor, "registration_error", lambda: "onnxq needs onnxruntime 1.24 or newer")
    found = facts()
    assert broken(found) == ["registration"]
    assert "1.24" in found["registration"].value


def test_cuda_kernels_without_a_driver_or_without_nvcc(machine):
    machine.driver = OSError("no such file")
    found = facts()
    assert (broken(found), found["CUDA driver"].state) == ([], State.NOTE)
    machine.library = Library(onnxq_isa="neon", onnxq_cuda="none: built without nvcc")
    found = facts()
    assert found["CUDA kernels"].value == "none: built without nvcc"
    assert "CUDA driver" not in found


def test_a_forced_blas_is_noted(machine):
    found = facts({"OPENBLAS_CORETYPE": "Haswell"})
    assert found["numpy's BLAS"].state is State.NOTE
    assert "OPENBLAS_CORETYPE=Haswell" in found["numpy's BLAS"].value


def test_a_processor_whose_sums_saturate_is_noted(machine, monkeypatch):
    monkeypatch.setattr(doctor, "saturates", lambda: True)
    assert facts()["int8 networks"].state is State.NOTE


def test_a_broken_plugin_stands_beside_the_good_ones(machine, monkeypatch):
    bad = metadata.EntryPoint("broken", "onnxq_no_such_module", "onnxq")
    good = metadata.EntryPoint("rtn", "onnxq_plugins.rtn", "onnxq")
    monkeypatch.setattr(registry_module.metadata, "entry_points", lambda group: [bad, good])
    found = facts()
    assert broken(found) == ["plugin"]
    assert "plugin 'broken' of unknown distribution" in found["plugin"].value
    assert found["plugin"].fix.startswith("repair it or pip uninstall")
    assert found["weight quantizers"].value == "rtn (unknown distribution)"
