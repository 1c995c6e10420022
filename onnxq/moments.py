"""Moments: what the inputs of matmuls look like, for weight quantizers that weigh their errors by it, and for biases.

    mean[k] = mean of x_k    second_moment[k] = mean of x_k^2    gram[j, k] = mean of x_j x_k    (rows of all batches)

A convolution is a matmul over patches for each group of its channels (see onnxq.patches), with moments for each.
A Gram matrix takes 8 K^2 bytes. They are collected for as many weights at a time as fit a budget, in the order in which
the weights will be quantized, with a pass over the data for each group; what was used is forgotten.
Products are taken batch by batch in float32 and added in float64, in batch order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxq.affine import FloatArray
from onnxq.data import Data
from onnxq.decide import Plan
from onnxq.model import Model
from onnxq.patches import Window, patches, window_of
from onnxq.plugin.contracts import WeightEvidence
from onnxq.plugin.registry import Registry
from onnxq.scratch import Scratch, scratch_copy
from onnxq.session import SessionOptions
from onnxq.state import StateLoop, state_pairs
from onnxq.survey import find_nodes

__all__ = ["MomentSource", "Need", "moments_needed"]

Need = Literal["mean", "second_moment", "gram"]
"""What is asked for: the mean by bias correction, the others by a weight quantizer's attribute `needs`. Each includes
those in front of it."""

_ORDER: tuple[Need, ...] = ("mean", "second_moment", "gram")

_BUDGET = 512 << 20
"""Bytes of moments held at once, unless one weight alone takes more."""


@dataclass(frozen=True, slots=True)
class _Operand:
    """A tensor as the left side of a matmul: its rows, or its patches."""

    tensor: str
    window: Window | None

    def rows(self, values: npt.NDArray[np.generic], seed: int) -> FloatArray:
        """Float32 [groups, rows, K]."""
        if self.window is not None:
            return patches(values.astype(np.float32, copy=False), self.window, seed=seed)
        return values.reshape(1, -1, values.shape[-1]).astype(np.float32)


def moments_needed(plan: Plan, registry: Registry) -> dict[str, Need]:
    """What weight quantizers and bias correction need, by name of the node, in the order of quantizing.

    Weights that were trained on a grid are not quantized again, and lose nothing that a bias could make up for.
    """
    needs: dict[str, Need] = {}
    for decision in plan.decisions:
        site = decision.site
        integer = plan.integer(site.node)
        if site.kind == "gather" or decision.given is not None:
            continue
        need = getattr(registry.weight_quantizer(decision.method).provided, "needs", None)
        if need is None and plan.bias_correction and integer is not None and integer.adds_bias:
            need = "mean"
        if need is not None and (site.kind != "conv" or integer is not None):
            needs[site.node] = need
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
        self._operands: dict[str, _Operand] = {}
        self._wanted: dict[_Operand, Need] = {}  # the most that anybody needs
        for node, need in needs.items():
            value = nodes[node].inputs[0]
            if value is None or not value.name or (value.graph is not model.ir.graph and value.producer() is None):
                continue
            producer = value.producer()
            if producer is not None and producer.graph is not model.ir.graph:
                continue  # inside a branch, whose values onnxruntime cannot hand out
            operand = _Operand(value.name, _window(nodes[node]))
            self._operands[node] = operand
            self._wanted[operand] = max(need, self._wanted.get(operand, "mean"), key=_ORDER.index)
        self._held: dict[_Operand, tuple[WeightEvidence, ...]] = {}
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

    def evidence(self, node: str) -> tuple[WeightEvidence, ...]:
        """Moments of a node's input, one set per group of channels; none where nobody asked or none can be observed."""
        operand = self._operands.get(node)
        if operand is None:
            return ()
        if operand not in self._held:
            self._held = self._collect(operand)
        return self._held[operand]

    def _collect(self, first: _Operand) -> dict[_Operand, tuple[WeightEvidence, ...]]:
        """Moments of what is wanted now and of what follows it, as far as the budget goes."""
        assert self._scratch is not None
        loop = StateLoop(self._model.ir.graph, self._pairs)
        group = self._fitting(first, loop)
        tensors = list(dict.fromkeys(operand.tensor for operand in group))
        sums = {operand: _Sums(self._wanted[operand]) for operand in group}
        # A graph input is known already, and onnxruntime would not hand it out.
        fed = {value.name for value in self._model.ir.graph.inputs}
        outputs = list(dict.fromkeys([*(name for name in tensors if name not in fed), *loop.outputs]))
        session, _ = self._scratch.session(self._options, outputs) if outputs else (None, None)
        for number, feed in enumerate(self._data.batches()):
            self._batches += 1
            self._on_batch(self._batches)
            complete = loop.complete(feed)
            fetched = session.run(complete, outputs) if session is not None else {}
            loop.keep(fetched)
            for operand, total in sums.items():
                values = complete[operand.tensor] if operand.tensor in fed else fetched[operand.tensor]
                total.add(operand.rows(values, seed=number))
        return {operand: total.evidence() for operand, total in sums.items()}

    def _fitting(self, first: _Operand, loop: StateLoop) -> list[_Operand]:
        """What comes from `first` on and stays within the budget together, at least one; sizes come from one run."""
        assert self._scratch is not None
        operands = list(self._wanted)
        operands = operands[operands.index(first) :]
        names = [operand.tensor for operand in operands]
        session, shapes = self._scratch.session(self._options, (), shapes_of=names)
        sizes = session.run(loop.complete(next(self._data.batches())), list(shapes.values()))
        group: list[_Operand] = []
        used = 0
        for operand in operands:
            groups, k = _extent(sizes[shapes[operand.tensor]], operand.window)
            used += 8 * groups * k * (k if self._wanted[operand] == "gram" else 1)
            if group and used > self._budget:
                break
            group.append(operand)
        return group


class _Sums:
    """Moments of one operand as they grow."""

    def __init__(self, need: Need) -> None:
        self._need, self._rows = need, 0
        self._mean: npt.NDArray[np.float64] | float = 0.0  # [groups, K]
        self._moment: npt.NDArray[np.float64] | float = 0.0  # [groups, K], or [groups, K, K]

    def add(self, rows: FloatArray) -> None:
        """Take in rows float32 [groups, rows, K]."""
        self._rows += rows.shape[1]
        self._mean = self._mean + rows.sum(axis=1, dtype=np.float64)
        if self._need == "gram":
            self._moment = self._moment + (rows.transpose(0, 2, 1) @ rows).astype(np.float64)
        elif self._need == "second_moment":
            self._moment = self._moment + np.einsum("gmk,gmk->gk", rows, rows).astype(np.float64)

    def evidence(self) -> tuple[WeightEvidence, ...]:
        """One set per group."""
        count = max(self._rows, 1)
        means = np.asarray(self._mean) / count
        if self._need == "mean":
            return tuple(WeightEvidence(mean=mean) for mean in means)
        moments = np.asarray(self._moment) / count
        return tuple(_evidence(mean, moment) for mean, moment in zip(means, moments, strict=True))


def _evidence(mean: npt.NDArray[np.float64], moment: npt.NDArray[np.float64]) -> WeightEvidence:
    if moment.ndim == 1:
        return WeightEvidence(mean=mean, second_moment=moment)
    return WeightEvidence(mean=mean, second_moment=np.ascontiguousarray(np.diag(moment)), gram=moment)


def _window(node: ir.Node) -> Window | None:
    filters = node.inputs[1] if node.op_type == "Conv" else None
    if filters is None or filters.const_value is None:
        return None
    return window_of(node, tuple(int(size) for size in filters.const_value.shape.numpy()))


def _extent(shape: npt.NDArray[np.generic], window: Window | None) -> tuple[int, int]:
    """Groups, and K, of a tensor of this shape."""
    if window is None:
        return 1, int(shape[-1])
    return window.group, int(shape[1]) // window.group * int(np.prod(window.kernel))
