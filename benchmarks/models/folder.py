"""Where models live on disk: one folder that every builder writes to and every scorer reads from.

DIR/dl/          wheels as downloaded
DIR/src/NAME/    the same, unpacked
DIR/minilm/...   float32 ONNX files, one folder for each model family
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .errors import SuiteError


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """The root of a model folder; every path below it is derived here."""

    root: Path

    @classmethod
    def default(cls) -> ModelFolder:
        """`$ONNXQ_MODELS` if set, else `~/.cache/onnxq-models`."""
        chosen = os.environ.get("ONNXQ_MODELS")
        return cls(Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "onnxq-models")

    @property
    def downloads(self) -> Path:
        return self.root / "dl"

    def unpacked(self, name: str) -> Path:
        """Where a package lies (or will lie) unpacked."""
        return self.root / "src" / name

    def source(self, relative: str) -> Path:
        """A file or folder inside an unpacked package, e.g. "foolbox/foolbox/data".

        Raises:
            SuiteError: the package has not been fetched.
        """
        path = self.root / "src" / relative
        if not path.exists():
            raise SuiteError(f"{path} is missing: run `python -m benchmarks.models fetch` first")
        return path

    def built(self, relative: str) -> Path:
        """A built file, e.g. "minilm/all_minilm_l6_v2_fp32.onnx".

        Raises:
            SuiteError: it has not been built.
        """
        path = self.root / relative
        if not path.exists():
            raise SuiteError(f"{path} is missing: run `python -m benchmarks.models fetch` first")
        return path


@contextmanager
def written_together(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside `folder`; when the block ends well, move its files into `folder`.

    A build that is interrupted leaves nothing behind that looks finished. Data files move before the
    ONNX file that refers to them, because the ONNX file is what says "built".
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".part-") as name:
        part = Path(name)
        yield part
        for file in sorted(part.iterdir(), key=lambda file: file.suffix == ".onnx"):
            os.replace(file, folder / file.name)


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name: a hard link where the file system has them, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
