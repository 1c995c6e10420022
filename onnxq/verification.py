"""Verify: run the float and the quantized model side by side and measure the damage, per layer and at the outputs.

It works on two files and knows nothing of how the second was made, so `onnxq verify` and the end of a conversion
are the same code. The layers to compare are read off the quantized file: outputs of packed nodes and of operators
fed by a DequantizeLinear, followed to the next value that the float file has under the same name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from onnxq import ops
from onnxq.damage import Damage, DamageMeter, class_like
from onnxq.errors import SessionError
from onnxq.session import Feed, Session, SessionOptions

__all__ = ["Verdict", "verify_files", "watched_values"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What verification measured.

    Attributes:
        data: where the batches came from, in words.
        batches: how many were run.
        outputs: damage of each model output.
        layers: damage behind each quantized node, by node name, in graph order.
        unwatched: quantized nodes and outputs that could not be compared, with the reason.
    """

    data: str
    batches: int
    outputs: Mapping[str, Damage]
    layers: Mapping[str, Damage]
    unwatched: Mapping[str, str]

    @property
    def finite(self) -> bool:
        """No output became NaN or infinite that was not so before."""
        return all(damage.finite for damage in self.outputs.values())


def verify_files(
    reference: Path,
    quantized: Path,
    feeds: Iterable[Feed],
    *,
    data: str,
    options: SessionOptions,
    on_batch: Callable[[int], None] = lambda index: None,
) -> Verdict:
    """Compare two model files over the same feeds.

    Args:
        reference: the float model.
        quantized: the model made from it; its outputs have the same names.
        feeds: batches; gone through once.
        data: what to call them in the verdict.
        options: of both sessions.
        on_batch: called before each batch, for progress.
    Raises:
        SessionError: a model does not load or run, or the outputs differ in name or shape.
    """
    watched, unwatched = watched_values(reference, quantized)
    names = list(dict.fromkeys(watched.values()))
    float_session = Session(reference, options, extra_outputs=names)
    quantized_session = Session(quantized, options, extra_outputs=names)
    declared = _declared_shapes(reference)
    outputs = [name for name in float_session.outputs if name in declared]
    if missing := [name for name in outputs if name not in quantized_session.outputs]:
        raise SessionError(f"{quantized}: has no output '{missing[0]}', which {reference} has; is it made from it?")
    meters = {name: DamageMeter() for name in names if name not in outputs}
    count = 0
    for count, feed in enumerate(feeds, start=1):
        on_batch(count)
        wanted = list(dict.fromkeys([*outputs, *names]))
        expected, got = float_session.run(feed, wanted), quantized_session.run(feed, wanted)
        for name in wanted:
            if (reason := _incomparable(expected[name], got[name])) is not None:
                if not _allows(declared.get(name, ()), got[name]):
                    raise SessionError(
                        f"{quantized}: '{name}' has shape {got[name].shape}, expected {expected[name].shape}; "
                        f"is it made from {reference}?"
                    )
                unwatched[name] = reason
                continue
            if name not in meters:
                meters[name] = DamageMeter(class_like=class_like(name, expected[name].shape))
            meters[name].update(expected[name], got[name])
    return Verdict(
        data=data,
        batches=count,
        outputs={name: meters[name].result() for name in outputs if name in meters and name not in unwatched},
        layers={
            node: meters[value].result()
            for node, value in watched.items()
            if value in meters and value not in unwatched
        },
        unwatched=unwatched,
    )


def _incomparable(expected: object, got: object) -> str | None:
    """Why two values cannot be compared number by number; None when they can."""
    if not isinstance(expected, np.ndarray) or not isinstance(got, np.ndarray):
        return "not a tensor"
    if expected.dtype.kind not in "fiub":
        return f"holds {expected.dtype}, not numbers"
    if expected.shape != got.shape:
        return f"its shape follows the data: {list(expected.shape)} in float, {list(got.shape)} quantized"
    return None


_PRODUCTS = frozenset({"MatMulNBits", "MatMulInteger"})
"""Operators with quantized weights and no DequantizeLinear in front of them."""


def watched_values(reference: Path, quantized: Path) -> tuple[dict[str, str], dict[str, str]]:
    """For each quantized node of the main graph the value to compare; and for the others why there is none."""
    float_values = {
        name for node in onnx.load(reference, load_external_data=False).graph.node for name in node.output if name
    }
    graph = onnx.load(quantized, load_external_data=False).graph
    consumers: dict[str, list[onnx.NodeProto]] = {}
    dequantized: set[str] = set()
    for node in graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
        if node.op_type == "DequantizeLinear":
            dequantized.update(node.output)
    watched: dict[str, str] = {}
    unwatched: dict[str, str] = {}
    for node in graph.node:
        packed = node.domain == ops.DOMAIN or node.op_type in _PRODUCTS
        if not packed and not dequantized.intersection(node.input):
            continue
        value = node.output[0]
        while value not in float_values and len(consumers.get(value, ())) == 1:
            value = consumers[value][0].output[0]
        if value in float_values:
            watched[ops.whole_node(node.name)] = value
        else:
            unwatched[ops.whole_node(node.name)] = "the float model has no value to compare it with"
    return watched, unwatched


def _declared_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Dims of each output of a model file, -1 where they are open; () where none are declared."""
    return {
        output.name: tuple(
            dim.dim_value if dim.HasField("dim_value") else -1 for dim in output.type.tensor_type.shape.dim
        )
        for output in onnx.load(path, load_external_data=False).graph.output
    }


def _allows(declared: tuple[int, ...], value: object) -> bool:
    """May an output declared like this have the shape of this value?"""
    if not declared or not isinstance(value, np.ndarray):
        return True
    return len(declared) == value.ndim and all(
        dim in (-1, size) for dim, size in zip(declared, value.shape, strict=True)
    )
