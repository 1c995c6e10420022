"""Bad input: each is one line with the next step, exit code 1 or 2, no traceback, and the folder as it was."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import onnxq, onnxq_process
from graphs import graph, model, node, value
from tiny_models import mlp

K = 64


def listing(folder: Path) -> dict[str, bytes]:
    """Everything below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def saved(folder: Path, proto: onnx.ModelProto | None = None, **options) -> Path:
    onnx.save(proto if proto is not None else mlp(), folder / "model.onnx", **options)
    return folder / "model.onnx"


def garbage(folder: Path) -> Path:
    (folder / "model.onnx").write_bytes(b"this is not an ONNX file")
    return folder / "model.onnx"


def truncated(folder: Path) -> Path:
    path = saved(folder)
    path.write_bytes(path.read_bytes()[:-1000])
    return path


def missing_data(folder: Path) -> Path:
    path = saved(folder, save_as_external_data=True, location="weights.bin", size_threshold=0)
    (folder / "weights.bin").unlink()
    return path


def short_data(folder: Path) -> Path:
    path = saved(folder, save_as_external_data=True, location="weights.bin", size_threshold=0)
    (folder / "weights.bin").write_bytes((folder / "weights.bin").read_bytes()[:-100])
    return path


def relocated(folder: Path, location: str) -> Path:
    path = saved(folder, save_as_external_data=True, location="weights.bin", size_threshold=0)
    proto = onnx.load(path, load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            entry.value = location if entry.key == "location" else entry.value
    path.write_bytes(proto.SerializeToString())
    return path


def symlinked(folder: Path) -> Path:
    path = saved(folder, save_as_external_data=True, location="weights.bin", size_threshold=0)
    (folder / "weights.bin").unlink()
    (folder / "weights.bin").symlink_to(sys.executable)
    return path


def custom_operator(folder: Path) -> Path:
    nodes = [node("Secret", ["X"], ["Y"], domain="acme", name="/secret")]
    main = graph(nodes, [value("X", ["M", K])], [value("Y", ["M", K])])
    return saved(folder, model(main, domains=["acme"]))


def nan_weight(folder: Path) -> Path:
    proto = mlp()
    array = onnx.numpy_helper.to_array(proto.graph.initializer[0]).copy()
    array[0, 0] = np.nan
    proto.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(array, proto.graph.initializer[0].name))
    return saved(folder, proto)


MODELS = {
    "not ONNX": (garbage, "not an ONNX file"),
    "truncated": (truncated, "truncated"),
    "missing external data": (missing_data, "'weights.bin' is missing"),
    "short external data": (short_data, "copy or download the file again"),
    "external data above": (lambda folder: relocated(folder, "../weights.bin"), "outside the model's folder"),
    "external data elsewhere": (lambda folder: relocated(folder, "/etc/hostname"), "outside the model's folder"),
    "external data symlinked": (symlinked, "outside the model's folder"),
    "custom operator": (custom_operator, "--custom-op-lib"),
    "NaN weight": (nan_weight, "--skip '/fc1'"),
}


@pytest.mark.parametrize("existing", [False, True], ids=["no output yet", "over an existing output"])
@pytest.mark.parametrize(("make", "message"), MODELS.values(), ids=MODELS)
def test_a_model_that_cannot_be_converted(tmp_path, make, message, existing):
    path = make(tmp_path)
    if existing:
        (tmp_path / "model.onnxq.onnx").write_text("precious")
    before = listing(tmp_path)
    done = onnxq("convert", path, *(["--overwrite"] if existing else []))
    assert done.code == 1
    assert message in done.error
    assert listing(tmp_path) == before


@pytest.mark.parametrize("command", ["inspect", "verify"])
@pytest.mark.parametrize(("make", "message"), list(MODELS.values())[:-1], ids=list(MODELS)[:-1])
def test_the_other_commands_say_the_same(tmp_path, command, make, message):
    path = make(tmp_path)
    done = onnxq(command, path, *([path] if command == "verify" else []))
    assert done.code == 1
    assert message in done.error


OPTIONS = {
    "bits": (["--bits", "7"], "'7' is not one of"),
    "bits as a word": (["--bits", "four"], "'four' is not one of"),
    "block size": (["--block-size", "48"], "'48' is not one of"),
    "block size 0": (["--block-size", "0"], "'0' is not one of"),
    "table bits": (["--table-bits", "3"], "'3' is not one of"),
    "method": (["--method", "rtm"], "did you mean 'rtn'?"),
    "format": (["--format", "pakced"], "did you mean 'packed'?"),
    "target": (["--target", "tpu"], "'tpu' is not one of"),
    "skip": (["--skip", "("], "not a regular expression"),
    "override": (["--override", "fc"], "is not REGEX=key:value"),
    "override bits": (["--override", "fc=bits:7"], "bits=7"),
    "override method": (["--override", "fc=method:rtm"], "did you mean 'rtn'?"),
    "recipe": (["--recipe", "nowhere.toml"], "no such file"),
    "unknown option": (["--bitts", "4"], "No such option"),
    "max ram": (["--max-ram", "lots"], "8GB or 512MiB"),
}


@pytest.mark.parametrize(("options", "message"), OPTIONS.values(), ids=OPTIONS)
def test_a_wish_that_cannot_be_is_a_usage_error(tmp_path, options, message):
    path = saved(tmp_path)
    before = listing(tmp_path)
    done = onnxq("convert", path, *options)
    assert done.code == 2
    assert message in done.error
    assert listing(tmp_path) == before


def test_a_missing_model(tmp_path):
    done = onnxq("convert", tmp_path / "nowhere.onnx")
    assert done.code == 1
    assert "no such file" in done.error


PLACES = {
    "the input itself": ("model.onnx", ["--overwrite"], "is the input itself"),
    "the input by another path": ("inner/../model.onnx", ["--overwrite"], "is the input itself"),
    "a link to the input": ("link.onnx", ["--overwrite"], "is the input itself"),
    "something that exists": ("other.onnx", [], "--overwrite"),
    "a folder": ("inner", ["--overwrite"], "inner"),
    "a folder called .onnx": ("folder.onnx", ["--overwrite"], "is a folder"),
    "a folder that does not exist": ("nowhere/out.onnx", [], "does not exist"),
    "a file as folder": ("other.onnx/out.onnx", [], "other.onnx"),
    "no .onnx": ("out.bin", [], "must end in .onnx"),
    "a report that is no .json": ("out.onnx", ["--report", "report.html2"], ".json"),
    "a report that is a folder": ("out.onnx", ["--report", "report.json"], "report.json: is a folder"),
    "a report in a folder that does not exist": ("out.onnx", ["--report", "nowhere/report.json"], "does not exist"),
}


@pytest.mark.parametrize(("output", "options", "message"), PLACES.values(), ids=PLACES)
def test_an_output_that_cannot_be(tmp_path, monkeypatch, output, options, message):
    monkeypatch.chdir(tmp_path)
    saved(tmp_path)
    (tmp_path / "inner").mkdir()
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "report.json").mkdir()
    (tmp_path / "other.onnx").write_text("precious")
    (tmp_path / "link.onnx").symlink_to("model.onnx")
    before = listing(tmp_path)
    done = onnxq("convert", "model.onnx", "-o", output, *options)
    assert done.code in (1, 2)
    assert message in done.error
    assert listing(tmp_path) == before


def test_a_full_disk(tmp_path, monkeypatch):
    path = saved(tmp_path)
    before = listing(tmp_path)

    def full(self, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    done = onnxq("convert", path)
    monkeypatch.undo()
    assert done.code == 1
    assert "free some space" in done.error
    assert listing(tmp_path) == before


def test_errors_of_the_installed_command_are_the_same(tmp_path):
    """In a process of its own: no traceback from Python, no log lines of onnxruntime around the error."""
    done = onnxq_process("convert", garbage(tmp_path))
    assert done.code == 1
    assert done.err.splitlines() == [done.error]
    assert done.out == ""


@pytest.mark.parametrize("trace", [False, True])
def test_a_bug_of_ours_is_one_line_and_the_trace_comes_on_request(tmp_path, monkeypatch, trace):
    def broken(*arguments, **options):
        raise ZeroDivisionError("first line\nsecond line")

    monkeypatch.setattr("onnxq.pipeline.inspect_model", broken)
    if trace:
        monkeypatch.setenv("ONNXQ_TRACEBACK", "1")
    done = onnxq("inspect", saved(tmp_path))
    assert done.code == 1
    last = done.err.splitlines()[-1]
    assert last.startswith("Error: internal error: ZeroDivisionError: first line second line; this is a bug in onnxq")
    assert ("Traceback" in done.err) == trace


WAITING_DATA = """
import pathlib, time
import numpy as np

calls = 0

def batches():
    global calls
    calls += 1
    if calls == 1:  # before anything is quantized
        yield {"X": np.zeros((1, 75), np.float32)}
        return
    pathlib.Path("reading").touch()
    time.sleep(60)
    yield {"X": np.zeros((1, 75), np.float32)}
"""


def test_ctrl_c_leaves_nothing(tmp_path):
    """Interrupted while it reads a batch, after the quantized model has been written beside its final place."""
    path = saved(tmp_path)
    (tmp_path / "waiting.py").write_text(WAITING_DATA)
    before = listing(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-B", "-m", "onnxq", "convert", path.name, "--data", "waiting:batches"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "reading").exists() and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    (tmp_path / "reading").unlink()
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "nothing was written" in err
    assert listing(tmp_path) == before
