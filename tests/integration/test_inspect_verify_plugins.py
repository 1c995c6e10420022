"""The commands that write nothing: `inspect`, `verify`, `plugins`, and the help."""

import json

import numpy as np
import onnx
import pytest
from command_line import onnxq
from tiny_models import conv_net, mlp, transformer


@pytest.fixture
def pair(tmp_path):
    """A float transformer and its quantized twin."""
    onnx.save(transformer(), tmp_path / "model.onnx")
    assert onnxq("convert", tmp_path / "model.onnx").code == 0
    return tmp_path / "model.onnx", tmp_path / "model.onnxq.onnx"


def test_inspect_says_what_would_become_of_each_weight(tmp_path):
    onnx.save(transformer(), tmp_path / "model.onnx")
    done = onnxq("inspect", tmp_path / "model.onnx", "--skip", "mlp/up")
    assert done.code == 0, done.err
    lines = {line.split()[0]: line for line in done.out.splitlines() if line.strip()}
    assert "uint4 block 32" in lines["/attention/q"]
    assert "int8 block 32" in lines["/embed"]
    assert "--skip mlp/up" in lines["/mlp/up"]
    assert "7 nodes" in done.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx"]


def test_inspect_as_json_is_the_plan_that_convert_follows(tmp_path):
    onnx.save(transformer(), tmp_path / "model.onnx")
    planned = json.loads(onnxq("inspect", tmp_path / "model.onnx", "--json", "--bits", "8").out)
    done = onnxq("convert", tmp_path / "model.onnx", "--bits", "8", "--report", tmp_path / "report.json")
    assert done.code == 0
    sites = json.loads((tmp_path / "report.json").read_text(encoding="utf8"))["sites"]
    assert [item["decision"] for item in sites] == planned["decisions"]


@pytest.mark.parametrize("make", [mlp, conv_net], ids=["mlp", "conv_net"])
def test_inspect_gives_a_reason_for_what_stays_float(tmp_path, make):
    onnx.save(make(), tmp_path / "model.onnx")
    plan = json.loads(onnxq("inspect", tmp_path / "model.onnx", "--json", "--skip", ".").out)
    assert plan["decisions"] == []
    assert plan["skips"]
    assert all(skip["reason"] for skip in plan["skips"])


def test_verify_prints_layers_and_outputs(pair):
    done = onnxq("verify", *pair)
    assert done.code == 0, done.err
    assert "/attention/q" in done.out
    assert "logits" in done.out
    assert "synthetic" in done.out


@pytest.mark.parametrize("library", [False, True], ids=["stock", "library"])
def test_verify_as_json(pair, library):
    done = onnxq("verify", *pair, "--json", *(["--use-library"] if library else []))
    verdict = json.loads(done.out)
    logits = verdict["outputs"]["logits"]
    assert 8 < logits["sqnr_db"] < 40  # 4-bit weights: 20 dB a layer
    assert 0.5 < logits["top1"] <= 1
    assert set(verdict["layers"]) >= {"/embed", "/head", "/mlp/down"}


def test_verify_on_data(pair, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for index in range(5):
        np.savez(folder / f"{index}.npz", input_ids=np.full((1, 4), index))
    done = onnxq("verify", *pair, "--data", folder)
    assert done.code == 0, done.err
    assert str(folder) in done.out


def test_verify_of_a_model_against_itself_is_exact(pair):
    done = onnxq("verify", pair[0], pair[0])
    assert done.code == 0
    assert "exact" in done.out


def test_verify_of_two_strangers_is_one_line(pair, tmp_path):
    onnx.save(mlp(), tmp_path / "other.onnx")
    done = onnxq("verify", pair[0], tmp_path / "other.onnx")
    assert done.code == 1
    assert done.error


def test_plugins_are_listed_with_family_and_distribution():
    done = onnxq("plugins")
    assert done.code == 0
    lines = [line.split() for line in done.out.splitlines()]
    assert any(line[:4] == ["weight", "quantizer", "rtn", "onnxq"] for line in lines)
    assert any(line[:3] == ["format", "packed", "onnxq"] for line in lines)


@pytest.mark.parametrize("command", [[], ["convert"], ["inspect"], ["verify"], ["plugins"], ["doctor"]], ids=str)
def test_help_teaches(command):
    done = onnxq(*command, "--help")
    assert done.code == 0
    assert done.out.startswith("Usage: onnxq")
    assert max(map(len, done.out.splitlines())) <= 100
    if command == ["convert"]:
        assert "Examples:" in done.out


def test_the_version_is_that_of_the_package():
    from importlib.metadata import version

    done = onnxq("--version")
    assert done.code == 0
    assert version("onnxq") in done.out
