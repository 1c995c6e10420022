"""Two ways to run `onnxq`: in this process, where that is equal and fast, and as a process of its own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from onnxq.cli import main


@dataclass(frozen=True)
class Result:
    """What a command left behind on the terminal."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line that begins with Error; progress lines before it are fine, a traceback is not."""
        assert "Traceback" not in self.err + self.out
        lines = [line for line in self.err.splitlines() if line.startswith("Error")]
        assert len(lines) == 1, self.err
        assert self.err.rstrip().splitlines()[-1] == lines[0], "more text behind the error"
        return lines[0]


def onnxq(*arguments: str | Path) -> Result:
    """Run the command line in this process, exactly as the installed script does."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["onnxq", *map(str, arguments)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
            code = 0
        except SystemExit as leaving:
            code = int(leaving.code or 0)
    return Result(code, out.getvalue(), err.getvalue())


def onnxq_process(*arguments: str | Path, path: Path | None = None, cwd: Path | None = None) -> Result:
    """Run `python -m onnxq` on its own; `path` goes in front of its PYTHONPATH."""
    environment = os.environ | ({"PYTHONPATH": str(path)} if path is not None else {})
    done = subprocess.run(
        [sys.executable, "-m", "onnxq", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=cwd,
        check=False,
        timeout=120,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def report_of(path: Path) -> dict[str, Any]:
    """A JSON report."""
    return json.loads(path.read_text(encoding="utf8"))
