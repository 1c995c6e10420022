"""Moments: what the inputs of matmuls look like, for weight quantizers that weigh their errors by it.

    second_moment[k] = mean of x_k^2        gram[j, k] = mean of x_j x_k        over all rows of all batches

A Gram matrix takes 8 K^2 bytes. They are collected for as many weights at a time as fit a budget, in the order in which
the weights will be quantized, with a pass over the data for each group; what was used is forgotten.
Products are taken batch by batch in float32 and added in float64, in batch order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Literal, Self

import numpy as np
import numpy.typing as npt

from onnxq.data import Data
from onnxq.decide import Plan
from onnxq.model import Model
from onnxq.plugin.contracts import WeightEvidence
from onnxq.plugin.registry import Registry
from onnxq.scratch import Scratch, scratch_copy
from onnxq.session import SessionOptions
from onnxq.state import StateLoop, state_pairs
from onnxq.survey import find_nodes

__all__ = ["MomentSource", "Need", "moments_needed"]

Need = Literal["second_moment", "gram"]
"""What a weight quantizer asks for with its attribute `needs`."""

_BUDGET = 512 << 20
"""Bytes of moments held at once, unless one weight alone takes more."""


def moments_needed(plan: Plan, registry: Registry) -> dict[str, Need]:
    """What the planned weight quantizers need, by name of the matmul, in the order of quantizing."""
    needs: dict[str, Need] = {}
    for decision in plan.decisions:
        need = getattr(registry.weight_quantizer(decision.method).provided, "needs", None)
        if need is not None and decision.site.kind in ("matmul", "matmul_transposed"):
            needs[decision.site.node] = need
    return needs


class MomentSource:
    """Collects moments when they are asked for. Use as a context manager: it holds a runnable copy of the model.

    Args:
        model: normalised.
        needs: what each node's weight quantizer needs, by node name, in the order of quantizing.
        data: batches to run.
        options: of the session.
        state: outputs fed back to inputs, see onnxq.state.
        on_batch: called before each batch with its number, counted over all passes.
        budget: bytes of moments held at once.
    """

    def __init__(
        self,
        model: Model,
        needs: Mapping[str, Need],
        data: Data,
        *,
        options: SessionOptions,
        state: Mapping[str, str],
        on_batch: Callable[[int], None] = lambda index: None,
        budget: int = _BUDGET,
    ) -> None:
        self._model, self._data, self._options, self._budget = model, data, options, budget
        self._pairs = state_pairs(model.ir.graph, state)
        self._on_batch, self._batches = on_batch, 0
        nodes = find_nodes(model.ir)
        self._inputs: dict[str, str] = {}
        self._wanted: dict[str, Need] = {}  # by tensor: the most that anybody needs
        for node, need in needs.items():
            value = nodes[node].inputs[0]
            if value is None or not value.name or (value.graph is not model.ir.graph and value.producer() is None):
                continue
            producer = value.producer()
            if producer is not None and producer.graph is not model.ir.graph:
                continue  # inside a branch, whose values onnxruntime cannot hand out
            self._inputs[node] = value.name
            self._wanted[value.name] = "gram" if need == "gram" else self._wanted.get(value.name, need)
        self._held: dict[str, WeightEvidence] = {}
        self._context: AbstractContextManager[Scratch] | None = None
        self._scratch: Scratch | None = None

    def __enter__(self) -> Self:
        if self._wanted:
            self._context = scratch_copy(self._model)
            self._scratch = self._context.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._context is not None:
            self._context.__exit__(kind, error, trace)

    def evidence(self, node: str) -> WeightEvidence | None:
        """Moments of a node's input; None where nobody asked for them or they cannot be observed."""
        tensor = self._inputs.get(node)
        if tensor is None:
            return None
        if tensor not in self._held:
            self._held = self._collect(tensor)
        return self._held[tensor]

    def _collect(self, first: str) -> dict[str, WeightEvidence]:
        """Moments of the tensor that is wanted now and of those that follow it, as far as the budget goes."""
        assert self._scratch is not None
        loop = StateLoop(self._model.ir.graph, self._pairs)
        group = self._fitting(first, loop)
        session, _ = self._scratch.session(self._options, [*group, *loop.outputs])
        sums: dict[str, npt.NDArray[np.float64]] = {}
        rows = dict.fromkeys(group, 0)
        for feed in self._data.batches():
            self._batches += 1
            self._on_batch(self._batches)
            fetched = session.run(loop.complete(feed), list(dict.fromkeys([*group, *loop.outputs])))
            loop.keep(fetched)
            for name in group:
                x = fetched[name].reshape(-1, fetched[name].shape[-1]).astype(np.float32)
                product = x.T @ x if self._wanted[name] == "gram" else np.einsum("mk,mk->k", x, x)
                sums[name] = sums[name] + product if name in sums else product.astype(np.float64)
                rows[name] += len(x)
        return {name: _evidence(total / max(rows[name], 1)) for name, total in sums.items()}

    def _fitting(self, first: str, loop: StateLoop) -> list[str]:
        """Tensors from `first` on that stay within the budget together, at least one; sizes come from one run."""
        assert self._scratch is not None
        names = list(self._wanted)
        names = names[names.index(first) :]
        session, shapes = self._scratch.session(self._options, (), shapes_of=names)
        sizes = session.run(loop.complete(next(self._data.batches())), list(shapes.values()))
        group: list[str] = []
        used = 0
        for name in names:
            k = int(sizes[shapes[name]][-1])
            used += 8 * k * (k if self._wanted[name] == "gram" else 1)
            if group and used > self._budget:
                break
            group.append(name)
        return group


def _evidence(moment: npt.NDArray[np.float64]) -> WeightEvidence:
    if moment.ndim == 1:
        return WeightEvidence(second_moment=moment)
    return WeightEvidence(second_moment=np.ascontiguousarray(np.diag(moment)), gram=moment)
