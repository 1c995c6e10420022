"""`onnxq calibrate`: what it writes, what it says, and that it writes nothing when something is wrong."""

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import onnxq
from graphs import graph, model, node, value
from tiny_models import conv_net, feeds_of

from onnxq.evidence import Evidence
from onnxq.scheme import Scheme

SCHEME = Scheme(8, False, "per_tensor")


@pytest.fixture
def network(tmp_path) -> Path:
    proto = conv_net()
    onnx.save(proto, tmp_path / "model.onnx")
    (tmp_path / "data").mkdir()
    for index in range(3):
        np.savez(tmp_path / "data" / f"{index}.npz", **feeds_of(proto, seed=index))
    return tmp_path / "model.onnx"


def test_writes_evidence_that_is_bound_to_the_model(network, tmp_path, registry):
    output = tmp_path / "e.npz"
    chosen = ("--format", "qdq", "--calibrator", "minmax")
    result = onnxq("calibrate", network, *chosen, "--data", tmp_path / "data", "-o", output)
    assert result.code == 0, result.err
    assert "tensors with minmax over 3 batches" in result.out
    evidence = Evidence.load(output, registry)
    assert evidence.batches == 3
    assert all(np.isfinite(evidence.range(name, SCHEME)).all() for name in evidence.tensors)
    assert not list(tmp_path.glob(".*"))


def test_two_runs_write_the_same_bytes_with_or_without_a_memory_limit(network, tmp_path):
    written = []
    for name, extra in (("a.npz", ()), ("b.npz", ("--max-ram", "1kB"))):
        arguments = ("--all-tensors", "--calibrator", "percentile:99", "--data", tmp_path / "data", *extra)
        assert onnxq("calibrate", network, *arguments, "-o", tmp_path / name).code == 0
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1]


@pytest.mark.parametrize("data", [(), ("--data", "random")])
def test_without_data_batches_are_made_and_that_is_said(network, tmp_path, data):
    result = onnxq("calibrate", network, "--all-tensors", *data, "-o", tmp_path / "e.npz")
    assert result.code == 0, result.err
    assert "real data would do better; give --data" in result.out


def test_a_recipe_feeds_state_back(tmp_path, registry):
    nodes = [node("Add", ["x", "h"], ["after"]), node("Relu", ["after"], ["y"])]
    shape = [1, 2]
    main = graph(nodes, [value("x", shape), value("h", shape)], [value("y", shape), value("after", shape)])
    onnx.save(model(main), tmp_path / "model.onnx")
    np.savez(tmp_path / "x.npz", x=np.ones((5, 1, 2), np.float32))
    (tmp_path / "recipe.toml").write_text('[state]\nafter = "h"\n')
    recipe = ("--recipe", tmp_path / "recipe.toml", "--all-tensors")
    result = onnxq(
        "calibrate", tmp_path / "model.onnx", *recipe, "--data", tmp_path / "x.npz", "-o", tmp_path / "e.npz"
    )
    assert result.code == 0, result.err
    _, high = Evidence.load(tmp_path / "e.npz", registry).range("after", SCHEME)
    assert high == 5


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("-o", "e.txt"), 1, "evidence is written as .npz"),
        (("-o", "none/e.npz"), 1, "its folder does not exist"),
        (("--calibrator", "minmix", "-o", "e.npz"), 2, "calibrator 'minmix' is not installed; did you mean 'minmax'"),
        (("--calibrator", "percentile:0", "-o", "e.npz"), 2, "nothing would be kept"),
        (("--data", "nowhere", "-o", "e.npz"), 1, "no such file or folder"),
        (("--data", "bad", "--all-tensors", "-o", "e.npz"), 1, "batch 1: input .* holds NaN or infinity"),
        (("--data", "empty", "-o", "e.npz"), 1, "the folder has no .npz"),
        (("--max-ram", "lots", "-o", "e.npz"), 2, "not a number with a unit"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(network, tmp_path, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    for index, factor in enumerate((1, np.nan)):
        feed = {name: array * np.float32(factor) for name, array in feeds_of(conv_net()).items()}
        np.savez(tmp_path / "bad" / f"{index}.npz", **feed)
    before = sorted(tmp_path.rglob("*"))
    result = onnxq("calibrate", network, *arguments)
    assert result.code == code
    assert re.search(message, result.error)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_existing_file_is_kept_unless_told(network, tmp_path):
    output = tmp_path / "e.npz"
    output.write_bytes(b"precious")
    result = onnxq("calibrate", network, "-o", output)
    assert (result.code, output.read_bytes()) == (1, b"precious")
    assert "exists already; pass --overwrite" in result.error
    assert onnxq("calibrate", network, "-o", output, "--overwrite").code == 0
    assert output.read_bytes() != b"precious"


def test_convert_takes_the_evidence_of_its_own_model_only(network, tmp_path):
    output = tmp_path / "e.npz"
    assert onnxq("calibrate", network, "--format", "qdq", "--data", tmp_path / "data", "-o", output).code == 0
    taken = onnxq("convert", network, "--format", "qdq", "--evidence", output, "-o", tmp_path / "q.onnx")
    assert taken.code == 0, taken.err
    onnx.save(conv_net(seed=1), tmp_path / "other.onnx")
    refused = onnxq("convert", tmp_path / "other.onnx", "--format", "qdq", "--evidence", output)
    assert refused.code == 1
    assert "collected on another model" in refused.error
    assert not (tmp_path / "other.onnxq.onnx").exists()


def test_convert_feeds_state_back_when_it_verifies(tmp_path):
    """The state only ever grows by feeding it back: batches bring none."""
    weights = {"w": np.eye(64, dtype=np.float32)}
    nodes = [node("Add", ["x", "h"], ["after"]), node("MatMul", ["after", "w"], ["y"])]
    shape = [1, 64]
    inputs, outputs = [value("x", shape), value("h", shape)], [value("y", shape), value("after", shape)]
    onnx.save(model(graph(nodes, inputs, outputs, weights)), tmp_path / "model.onnx")
    np.savez(tmp_path / "x.npz", x=np.ones((10, 1, 64), np.float32))
    (tmp_path / "recipe.toml").write_text('bits = 8\n[state]\nafter = "h"\n')
    arguments = ("--data", tmp_path / "x.npz", "-o", tmp_path / "q.onnx")
    without = onnxq("convert", tmp_path / "model.onnx", *arguments)
    assert without.code == 1
    assert "input 'h' is missing" in without.error
    result = onnxq("convert", tmp_path / "model.onnx", "--recipe", tmp_path / "recipe.toml", *arguments)
    assert result.code == 0, result.err
    assert "the last 2 of 10 batches" in result.out
