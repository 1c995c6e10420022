"""State: a model that hands some of its outputs back to its inputs is fed the way it will be used.

A recipe names the pairs, output to input; one `*` in both stands for the same text:

    [state]
    stateN = "state"
    "present.*" = "past_key_values.*"

1. A batch that brings an array for a state input begins there: a new recording, a new sentence.
2. A batch that does not goes on from what the previous batch ended with.
3. Before there is a previous batch the state is zeros. An axis that grows (input and output name its size
   differently, as past and total length do) begins empty; another open axis has the size that the batch gives to the
   same name, or 1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxq.errors import RecipeError
from onnxq.session import Feed, Session

__all__ = ["StateLoop", "state_pairs"]


def state_pairs(graph: ir.Graph, state: Mapping[str, str]) -> dict[str, str]:
    """Output name -> input name, `*` expanded.

    Raises:
        RecipeError: no such output or input, or an input fed by two outputs.
    """
    outputs = [value.name or "" for value in graph.outputs]
    inputs = [value.name or "" for value in graph.inputs]
    pairs: dict[str, str] = {}
    for source, target in state.items():
        found = list(_expanded(source, target, outputs))
        if not found:
            raise RecipeError(f"state: the model has no output '{source}'; it has {', '.join(outputs)}")
        for output, fed in found:
            if fed not in inputs:
                raise RecipeError(
                    f"state: the model has no input '{fed}' (fed by '{output}'); it has {', '.join(inputs)}"
                )
            if fed in pairs.values():
                raise RecipeError(f"state: input '{fed}' is fed by two outputs; name one")
            pairs[output] = fed
    return pairs


def _expanded(source: str, target: str, outputs: Iterable[str]) -> Iterable[tuple[str, str]]:
    if source.count("*") != target.count("*") or source.count("*") > 1:
        raise RecipeError(f"state: '{source}' = '{target}' needs no * or one in each")
    pattern = re.compile(re.escape(source).replace(r"\*", "(.+)"))
    for output in outputs:
        if match := pattern.fullmatch(output):
            yield output, target.replace("*", match[1]) if match.groups() else target


class StateLoop:
    """The state of one pass over the data.

    Args:
        graph: gives the types and shapes of inputs and outputs.
        pairs: output -> input, from `state_pairs`.
    """

    def __init__(self, graph: ir.Graph, pairs: Mapping[str, str]) -> None:
        self._pairs = pairs
        self._inputs = {value.name: value for value in graph.inputs}
        self._outputs = {value.name: value for value in graph.outputs}
        self._state: dict[str, npt.NDArray[np.generic]] = {}

    @property
    def outputs(self) -> tuple[str, ...]:
        """Outputs to fetch from every run."""
        return tuple(self._pairs)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Inputs that a batch may leave out."""
        return tuple(self._pairs.values())

    def completed(self, feeds: Iterable[Feed], session: Session) -> Iterator[Feed]:
        """Every batch with its state; the session runs each to know the next one's."""
        for feed in feeds:
            complete = self.complete(feed)
            yield complete
            if self._pairs:
                self.keep(session.run(complete, self.outputs))

    def complete(self, feed: Feed) -> Feed:
        """The batch with an array for every state input (cases 1 to 3)."""
        complete = dict(feed)
        for output, name in self._pairs.items():
            if name not in complete:
                complete[name] = self._state[name] if name in self._state else self._zeros(output, name, feed)
        return complete

    def keep(self, fetched: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Remember what a run ended with."""
        self._state = {name: fetched[output] for output, name in self._pairs.items()}

    def _zeros(self, output: str, name: str, feed: Feed) -> npt.NDArray[np.generic]:
        value = self._inputs[name]
        if value.shape is None or value.dtype is None:
            raise RecipeError(
                f"state: input '{name}' has no shape to make zeros of; give its first state with the data"
            )
        after = self._outputs[output].shape
        known = self._symbols(feed)
        sizes = []
        for axis, dim in enumerate(value.shape):
            if isinstance(dim, int):
                sizes.append(dim)
            elif dim.value in known:
                sizes.append(known[dim.value])
            else:
                grown = after[axis] if after is not None and axis < len(after) else None
                grows = isinstance(grown, ir.SymbolicDim) and None not in (grown.value, dim.value) and grown != dim
                sizes.append(0 if grows else 1)
        return np.zeros(sizes, value.dtype.numpy())

    def _symbols(self, feed: Feed) -> dict[str | None, int]:
        """Sizes that this batch gives to named dims."""
        known: dict[str | None, int] = {}
        for name, array in feed.items():
            shape = self._inputs[name].shape if name in self._inputs else None
            for dim, size in zip(shape or (), array.shape, strict=False):
                if isinstance(dim, ir.SymbolicDim) and dim.value is not None:
                    known[dim.value] = size
        return known
