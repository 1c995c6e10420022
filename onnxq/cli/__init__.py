"""The command line: `onnxq convert`, `calibrate`, `inspect`, `verify`, `plugins`, `doctor`.

Exit codes: 0 fine, 1 error, 2 usage (including a recipe that cannot be), 3 verification missed its target.
"""

from __future__ import annotations

import os
import sys
import traceback

import click

from onnxq.cli.calibrate import calibrate
from onnxq.cli.convert import convert
from onnxq.cli.doctor import doctor
from onnxq.cli.inspect import inspect
from onnxq.cli.plugins import plugins
from onnxq.cli.verify import verify
from onnxq.errors import OnnxqError, RecipeError

__all__ = ["main", "onnxq"]

_TRACE = "ONNXQ_TRACEBACK"
"""Environment variable that asks for the trace of an internal error."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="onnxq")
def onnxq() -> None:
    """Make ONNX models smaller and faster for onnxruntime, and see what it cost.

    \b
    The usual way:
      onnxq inspect model.onnx          what could be quantized, and what not
      onnxq convert model.onnx          a 4-bit model beside it, verified
      onnxq verify  model.onnx model.onnxq.onnx --data batches/

    The result runs in stock onnxruntime as it is. Register onnxq's kernels (onnxq.register_ops) and the same
    file runs faster.
    """


for command in (convert, calibrate, inspect, verify, plugins, doctor):
    onnxq.add_command(command)


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        sys.exit(onnxq.main(standalone_mode=False, prog_name="onnxq") or 0)
    except OnnxqError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2 if isinstance(error, RecipeError) else 1)
    except click.exceptions.Exit as exit_request:
        sys.exit(exit_request.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted; nothing was written. Run the same command to start again.", err=True)
        sys.exit(130)
    except Exception as error:  # noqa: BLE001  # a bug of ours: one line for the user, the trace on request
        if os.environ.get(_TRACE):
            traceback.print_exc()
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        click.echo(
            f"Error: internal error: {reason}; this is a bug in onnxq, please report it with the model "
            f"({_TRACE}=1 shows the trace)",
            err=True,
        )
        sys.exit(1)
