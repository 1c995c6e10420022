"""Synthetic feeds: inputs that a model accepts, made from its graph alone.

They respect types, fixed dims and symbolic dims (one size per symbol; `past + seq` is added up). Integers are kept
where the graph can use them:

1. indices of a Gather over a constant table stay below its size;
2. a value that is compared (Equal) with constants is one of them, as in a sample-rate switch;
3. masks are ones; other integers are 0 or 1; a single boolean is true and false in turn.

Floats are standard normal, strings are "a". Which size an open dim may have, only running the model tells: sizes are
tried in turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxq.errors import DataError, SessionError
from onnxq.session import Feed, InputSpec, Session

__all__ = ["synthetic_feeds"]

_IMAGE_SIZES = (224, 64, 32, 96, 256, 16, 8, 4, 1)
_LENGTHS = (16, 32, 64, 128, 512, 576, 256, 1024, 2048, 8, 4, 2, 1)
_PASSES_INDICES = frozenset({"Cast", "Reshape", "Unsqueeze", "Squeeze", "Identity", "Flatten", "Expand", "Clip"})


@dataclass(frozen=True, slots=True)
class _Values:
    """Which integers an input may take: one of `choices`, or below `limit`."""

    choices: npt.NDArray[Any] | None = None
    limit: int | None = None


def synthetic_feeds(graph: ir.Graph, session: Session, *, count: int, seed: int) -> list[Feed]:
    """Make feeds that the session has been seen to run.

    Args:
        graph: the model's graph, weights readable.
        session: the same model, loaded.
        count: number of feeds; they differ in their values, not in their shapes.
        seed: of the random values.
    Raises:
        DataError: no size of the open dims works; the message has the last reason.
    """
    specs = session.inputs
    values = {value.name or "": _allowed(value) for value in graph.inputs}
    reason = ""
    for sizes in _candidates(specs):
        rng = np.random.default_rng(seed)
        feeds: list[Feed] = [
            {spec.name: _array(spec, sizes, values.get(spec.name, _Values()), rng, index) for spec in specs}
            for index in range(count)
        ]
        try:
            session.run(feeds[0], session.outputs[:1])
        except SessionError as error:
            reason = str(error)
            continue
        return feeds
    raise DataError(f"no synthetic input fits this model ({reason}); give real inputs with --data")


def _candidates(specs: Sequence[InputSpec]) -> Iterator[Mapping[tuple[str, int] | str, int]]:
    """Sizes of all open dims, by symbol or by (input, axis)."""
    open_dims = {
        _key(spec, axis): (len(spec.shape), axis)
        for spec in specs
        for axis, dim in enumerate(spec.shape)
        if not isinstance(dim, int) or dim < 0
    }
    first = specs[0].name if specs else ""
    lengths = [*zip((*_IMAGE_SIZES, *_IMAGE_SIZES[-1:] * 4), _LENGTHS, strict=True)]
    tried = set()
    for batch in (1, 2):
        for only_first in (False, True):  # state inputs often want 1 where the main input is long
            for image, length in lengths:
                sizes = {
                    key: batch if axis == 0 or (only_first and key[0] != first) else image if rank >= 4 else length
                    for key, (rank, axis) in open_dims.items()
                }
                if tuple(sizes.items()) not in tried:
                    tried.add(tuple(sizes.items()))
                    yield sizes


def _key(spec: InputSpec, axis: int) -> tuple[str, int] | str:
    dim = spec.shape[axis]
    return dim if isinstance(dim, str) and dim not in ("", "?") else (spec.name, axis)


def _size(spec: InputSpec, axis: int, sizes: Mapping[tuple[str, int] | str, int]) -> int:
    dim, key = spec.shape[axis], _key(spec, axis)
    if isinstance(dim, int) and dim >= 0:
        return dim
    if isinstance(key, str) and "+" in key:
        parts = [part.strip() for part in key.split("+")]
        if all(part.isdigit() or part in sizes for part in parts):
            return sum(int(part) if part.isdigit() else sizes[part] for part in parts)
    return sizes[key]


def _array(
    spec: InputSpec,
    sizes: Mapping[tuple[str, int] | str, int],
    values: _Values,
    rng: np.random.Generator,
    index: int,
) -> npt.NDArray[Any]:
    shape = tuple(_size(spec, axis, sizes) for axis in range(len(spec.shape)))
    if spec.dtype.kind == "f":
        return np.asarray(rng.standard_normal(shape), dtype=spec.dtype)
    if spec.dtype.kind == "b":
        # a single one is a switch, e.g. of an If: both its sides are to be seen; many are a mask
        return np.full(shape, index % 2 == 0 or np.prod(shape) > 1)
    if spec.dtype.kind == "U":
        return np.full(shape, "a")
    if spec.dtype.kind not in "iu":
        raise DataError(f"input '{spec.name}' holds {spec.dtype}, which cannot be invented; give --data")
    if values.choices is not None:
        return np.asarray(rng.choice(values.choices, size=shape), dtype=spec.dtype)
    if values.limit is not None:
        return np.asarray(rng.integers(0, values.limit, shape), dtype=spec.dtype)
    if "mask" in spec.name.lower():
        return np.ones(shape, spec.dtype)
    return np.asarray(rng.integers(0, 2, shape), dtype=spec.dtype)


def _allowed(value: ir.Value) -> _Values:
    """Follow an integer input to where its values matter (cases 1 and 2)."""
    limits: list[int] = []
    stack, seen = [value], {id(value)}
    while stack:
        current = stack.pop()
        for usage in current.uses():
            node = usage.node
            if node.op_type in _PASSES_INDICES and usage.idx == 0:
                following = node.outputs[0]
                if id(following) not in seen:
                    seen.add(id(following))
                    stack.append(following)
            elif node.op_type == "Equal":
                other = node.inputs[1 - usage.idx]
                if other is not None and other.const_value is not None:
                    return _Values(choices=other.const_value.numpy().reshape(-1))
            elif node.op_type == "Gather" and usage.idx == 1:
                table = node.inputs[0]
                if table is not None and table.const_value is not None:
                    limits.append(int(table.const_value.shape.numpy()[node.attributes.get_int("axis", 0)]))
    return (
        _Values(limit=max(1, min(limits))) if limits else _Values()
    )  # the session refuses any index of an empty table
