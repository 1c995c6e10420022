"""A weight quantizer from a package that is really pip-installed: found by its entry point, used by its name."""

import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from command_line import onnxq_process, report_of
from tiny_models import mlp

SAMPLE = Path(__file__).resolve().parents[2] / "samples" / "third_party_weight_quantizer"


def pip_install(source: Path, target: Path) -> Path:
    """Install without the network: build backend and dependencies are those of the running environment."""
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-build-isolation", "--no-deps"]
    done = subprocess.run([*command, "--target", target, source], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder for PYTHONPATH in which the sample is installed."""
    source = tmp_path_factory.mktemp("source") / "sample"
    shutil.copytree(SAMPLE, source)  # pip builds in the source folder
    return pip_install(source, tmp_path_factory.mktemp("installed"))


def test_it_is_listed_with_its_distribution(installed):
    done = onnxq_process("plugins", path=installed)
    assert done.code == 0, done.err
    (line,) = (line for line in done.out.splitlines() if "stochastic" in line)
    assert line.split() == ["weight", "quantizer", "stochastic", "onnxq_stochastic", "1.2.3"]


@pytest.mark.parametrize("options", [[], ["--symmetric", "--bits", "8"], ["--block-size", "channel"]], ids=str)
def test_it_quantizes_by_name(installed, tmp_path, options):
    onnx.save(mlp(), tmp_path / "model.onnx")
    command = ["convert", tmp_path / "model.onnx", "--method", "stochastic", "--report", tmp_path / "report.json"]
    done = onnxq_process(*command, *options, path=installed)
    assert done.code == 0, done.err
    sites = report_of(tmp_path / "report.json")["sites"]
    assert {item["decision"]["method"] for item in sites} == {"stochastic"}
    assert all(item["weight_sqnr_db"] > 10 for item in sites)


def test_without_it_the_name_is_unknown(tmp_path):
    onnx.save(mlp(), tmp_path / "model.onnx")
    done = onnxq_process("convert", tmp_path / "model.onnx", "--method", "stochastic")
    assert done.code == 2
    assert "method 'stochastic' is not installed" in done.error


BROKEN = {
    "cannot be imported": ("import no_such_module_of_mine\n", "ModuleNotFoundError"),
    "misspells a hook": (
        "from onnxq.plugin.hookspecs import hookimpl\n\n@hookimpl\ndef onnxq_weight_quantiser():\n    return []\n",
        "the hooks are",
    ),
    "takes a name that is taken": (
        "from onnxq.plugin.hookspecs import hookimpl\nfrom onnxq_plugins.rtn import RoundToNearest\n\n"
        "@hookimpl\ndef onnxq_weight_quantizers():\n    return [RoundToNearest()]\n",
        "'rtn' is provided twice",
    ),
}


@pytest.mark.parametrize(("content", "message"), BROKEN.values(), ids=BROKEN)
def test_a_package_that(installed, tmp_path, content, message):
    """The installed module replaced by a broken one: one line that names the distribution, nothing written."""
    folder = tmp_path / "installed"
    shutil.copytree(installed, folder)
    (folder / "onnxq_stochastic.py").write_text(content)
    onnx.save(mlp(), tmp_path / "model.onnx")
    done = onnxq_process("convert", tmp_path / "model.onnx", path=folder)
    assert done.code == 1
    assert message in done.error
    assert "onnxq_stochastic 1.2.3" in done.error
    assert not (tmp_path / "model.onnxq.onnx").exists()
