"""`onnxq doctor` on this machine, and on the same machine with something broken for one process."""

import json
import os

import pytest
from command_line import onnxq_process

import onnxq
from onnxq.session import check_installation


def examined(path=None) -> tuple[int, dict[str, dict[str, str]]]:
    """Exit code and facts by topic."""
    done = onnxq_process("doctor", "--json", path=path)
    answer = json.loads(done.out)
    assert answer["ok"] == (done.code == 0), done.err
    return done.code, {fact["topic"]: fact for fact in answer["facts"]}


def distribution(folder, name: str, version: str, entry_points: str = "") -> None:
    """Metadata as pip would leave it."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf8")
    (info / "entry_points.txt").write_text(entry_points, encoding="utf8")


def test_this_machine_is_fine(monkeypatch):
    monkeypatch.delenv("ONNXQ_ISA", raising=False)
    code, facts = examined()
    assert code == 0
    assert facts["onnxruntime"]["value"] == check_installation()
    assert "CPUExecutionProvider" in facts["execution providers"]["value"]
    assert "rtn" in facts["weight quantizers"]["value"]
    assert facts["custom-op library"]["value"] == str(onnxq.library_path())
    assert facts["instruction set"]["value"].split(":")[0] in {"amx", "avx512vnni", "avxvnni", "avx2", "neon", "scalar"}
    assert facts["CUDA kernels"]["value"]


def test_the_table_says_the_same():
    done = onnxq_process("doctor")
    assert done.code == 0, done.out
    assert "onnxruntime" in done.out
    assert "instruction set" in done.out


def test_a_forced_instruction_set_is_the_one_that_is_taken(monkeypatch):
    monkeypatch.setenv("ONNXQ_ISA", "scalar")
    code, facts = examined()
    assert (code, facts["instruction set"]["state"]) == (0, "note")
    assert facts["instruction set"]["value"].startswith("scalar")


@pytest.mark.parametrize("name", ["pentium", "avx2" if os.uname().machine == "aarch64" else "neon"])
def test_an_instruction_set_that_the_machine_lacks_is_broken(monkeypatch, name):
    monkeypatch.setenv("ONNXQ_ISA", name)
    code, facts = examined()
    assert (code, facts["instruction set"]["state"]) == (1, "broken")
    assert f"ONNXQ_ISA={name} is not" in facts["instruction set"]["value"]
    assert facts["instruction set"]["fix"] == "unset ONNXQ_ISA"


def test_two_onnxruntimes_are_broken(tmp_path):
    for name in ("onnxruntime", "onnxruntime-gpu"):
        distribution(tmp_path, name, "9.9.9")
    code, facts = examined(tmp_path)
    assert (code, facts["onnxruntime"]["state"]) == (1, "broken")
    assert "both installed" in facts["onnxruntime"]["value"]
    assert "pip uninstall" in facts["onnxruntime"]["fix"]


def test_a_broken_plugin_hides_no_other(tmp_path):
    distribution(tmp_path, "bad-plugin", "2.0", "[onnxq]\nbad = onnxq_bad_plugin\n")
    (tmp_path / "onnxq_bad_plugin.py").write_text("raise RuntimeError('out of order')\n", encoding="utf8")
    code, facts = examined(tmp_path)
    assert (code, facts["plugin"]["state"]) == (1, "broken")
    assert "plugin 'bad' of bad-plugin 2.0 cannot be imported: RuntimeError: out of order" in facts["plugin"]["value"]
    assert "rtn" in facts["weight quantizers"]["value"]
