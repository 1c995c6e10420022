"""The hooks a plugin implements: three functions, each returning a list of objects.

All three fire once, when a command starts and before any model is read. A plugin module looks like:

    import onnxq.plugin.hookspecs as hooks

    @hooks.hookimpl
    def onnxq_weight_quantizers():
        return [MyQuantizer()]

and is announced in its pyproject.toml:

    [project.entry-points.onnxq]
    my_quantizer = "my_module"
"""

from __future__ import annotations

from collections.abc import Sequence

import pluggy

from onnxq.plugin.contracts import Calibrator, Format, WeightQuantizer

__all__ = ["GROUP", "hookimpl", "hookspec", "onnxq_calibrators", "onnxq_formats", "onnxq_weight_quantizers"]

GROUP = "onnxq"
"""The entry-point group, and pluggy's project name."""

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


@hookspec
def onnxq_calibrators() -> Sequence[type[Calibrator]]:
    """Calibrator classes; each is instantiated once per tensor with the user's parameters."""
    return ()


@hookspec
def onnxq_weight_quantizers() -> Sequence[WeightQuantizer]:
    """Weight quantizers, selected with `--method NAME`."""
    return ()


@hookspec
def onnxq_formats() -> Sequence[Format]:
    """Formats, selected with `--format NAME`."""
    return ()
