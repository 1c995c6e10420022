"""The declared slice of ONNX Runtime's C ABI against the onnxruntime that is installed.

Loading the library and running every op calls every slot; here the numbers are checked one by one, so
that a wrong slot is a failed test and not a crash in a user's process.
"""

import ctypes
import os
import re
import subprocess
import sys
from pathlib import Path

import onnxruntime as ort
import pytest

HEADER = Path(__file__).resolve().parents[2] / "kernels" / "ort" / "c_api.h"
SLOTS = {
    name: int(number)
    for name, number in re.findall(
        r"^  (\w+) = (\d+),$", HEADER.read_text().split("enum class Slot")[1].split("};")[0], re.M
    )
}
API_VERSION = int(re.search(r"kApiVersion = (\d+)", HEADER.read_text()).group(1))


# A custom-op library that keeps the table it is handed: onnxruntime's wheels export no other way to it.
PROBE = "const void* base; void* RegisterCustomOps(void* options, const void* b) { base = b; return 0; }\n"


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """The running onnxruntime's OrtApi as an array of addresses."""
    folder = tmp_path_factory.mktemp("probe")
    (folder / "probe.c").write_text(PROBE)
    path = str(folder / "libprobe.so")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", path, str(folder / "probe.c")], check=True)
    probe = ctypes.CDLL(path)  # held open: session options close what they opened
    ort.SessionOptions().register_custom_ops_library(path)
    get_api = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint32)
    base = ctypes.cast(ctypes.c_void_p.in_dll(probe, "base"), ctypes.POINTER(get_api))
    return ctypes.cast(base[0](API_VERSION), ctypes.POINTER(ctypes.c_void_p))


def test_create_and_read_a_status_by_slot(table):
    """The ends of the oldest slots fit together: what one writes the other reads."""
    create = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p)(table[SLOTS["CreateStatus"]])
    message = ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.c_void_p)(table[SLOTS["GetErrorMessage"]])
    release = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(table[SLOTS["ReleaseStatus"]])
    status = create(1, b"seven")
    assert message(status) == b"seven"
    release(status)


def test_key_value_pairs_by_slot(table):
    """What slots 295 and 296 (CreateKeyValuePairs, AddKeyValuePair) write, GetKeyValue reads."""
    pairs = ctypes.c_void_p()
    ctypes.CFUNCTYPE(None, ctypes.POINTER(ctypes.c_void_p))(table[295])(ctypes.byref(pairs))
    ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p)(table[296])(pairs, b"key", b"value")
    get = ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.c_void_p, ctypes.c_char_p)(table[SLOTS["GetKeyValue"]])
    assert get(pairs, b"key") == b"value"
    assert get(pairs, b"other") is None
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(table[SLOTS["ReleaseKeyValuePairs"]])(pairs)


def test_slots_agree_with_the_official_header_where_there_is_one(tmp_path):
    """ONNXRUNTIME_INCLUDE names a folder with onnxruntime_c_api.h."""
    include = os.environ.get("ONNXRUNTIME_INCLUDE")
    if not include:
        pytest.skip("no onnxruntime_c_api.h on this machine: set ONNXRUNTIME_INCLUDE to its folder")
    checks = "\n".join(
        f"static_assert(offsetof(OrtApi, {name}) == {slot} * sizeof(void*));" for name, slot in SLOTS.items()
    )
    source = tmp_path / "offsets.cc"
    source.write_text(
        f'#include <cstddef>\n#include "onnxruntime_c_api.h"\n#include "ort/c_api.h"\n{checks}\n'
        "static_assert(sizeof(OrtCustomOp) == sizeof(onnxq::ort::OrtCustomOp));\n"
    )
    command = ["c++", "-std=c++20", "-fsyntax-only", f"-I{include}", f"-I{HEADER.parents[1]}", str(source)]
    subprocess.run(command, check=True)


def test_every_slot_is_tested_through_an_op():
    """The wrapper names each slot that the header declares; the op tests run each of its methods."""
    wrapper = (HEADER.parent / "api.cc").read_text()
    assert [name for name in SLOTS if f"Slot::{name}" not in wrapper] == []


def test_exported_answers(library):
    code = (
        "import ctypes, sys; lib = ctypes.CDLL(sys.argv[1])\n"
        "for f in (lib.onnxq_isa, lib.onnxq_signatures): f.restype = ctypes.c_char_p; print(f().decode())"
    )
    text = subprocess.run([sys.executable, "-c", code, library], check=True, capture_output=True, text=True).stdout
    assert "PackedMatMul(float, int4, float16) -> float" in text
    assert "PackedGatherFloat16ZeroPoint(uint4, int64, float16, uint4) -> float16" in text


@pytest.mark.parametrize(
    ("name", "message"),
    [("pentium", "ONNXQ_ISA=pentium is not known; known are "), ("neon", "ONNXQ_ISA=neon is not supported")],
)
def test_a_path_that_this_machine_has_not_is_refused(library, name, message):
    if name == "neon" and os.uname().machine == "aarch64":
        pytest.skip("this machine has NEON")
    code = "import onnxruntime as o, sys; o.SessionOptions().register_custom_ops_library(sys.argv[1])"
    environment = os.environ | {"ONNXQ_ISA": name}
    done = subprocess.run([sys.executable, "-c", code, library], env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    assert message in done.stderr
