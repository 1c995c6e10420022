"""Calibrate: run the float model over the data and let a calibrator watch each tensor that somebody wished for.

1. Only wished tensors are fetched; outputs that nobody wished for are not even computed.
2. They are fetched in groups that fit memory, with one pass over the data per group: what is held at any time is one
   group's tensors of one batch, however many batches there are.
3. Attention masks: in a tensor from which only elementwise and reshaping operators lead to a Softmax, values at or
   below -5000 (-1e4, the most negative float, -inf, or such a mask plus a score) have weight exp(-5000) = 0
   whatever their size. They are kept out, or a range would be all mask.
4. What cannot be observed is said, with its reason, not guessed: see Evidence.unobserved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import onnx_ir as ir

from onnxq.data import Data
from onnxq.errors import DataError, PlanError
from onnxq.evidence import Evidence, Wish
from onnxq.model import FLOAT_TYPES, Model, all_graphs, weight_bytes
from onnxq.plugin.parameters import new_calibrator, parse_choice
from onnxq.plugin.registry import Registry
from onnxq.scratch import Scratch, scratch_copy
from onnxq.session import SessionOptions
from onnxq.state import StateLoop, state_pairs
from onnxq.watcher import Watcher

__all__ = ["calibrate", "float_activations", "masked_tensors"]

_FETCHED_AT_ONCE = 128 << 20
"""Bytes of tensors fetched per run unless max_ram says otherwise."""

_KEEPS_MASKS = frozenset(
    {"Add", "Sub", "Mul", "Div", "Where", "Min", "Max", "Clip", "Cast", "CastLike", "Identity"}
    | {"Reshape", "Squeeze", "Unsqueeze", "Expand", "Transpose", "Slice", "Concat", "Tile", "Pad"}
)
"""Operators through which a mask goes on its way to a Softmax."""

_NO_STATE: Mapping[str, str] = MappingProxyType({})


def calibrate(
    model: Model,
    wishes: Sequence[Wish],
    data: Data,
    registry: Registry,
    *,
    options: SessionOptions,
    state: Mapping[str, str] = _NO_STATE,
    max_ram: int | None = None,
    on_batch: Callable[[int], None] = lambda index: None,
) -> Evidence:
    """Observe tensors over all batches.

    Args:
        model: normalised; wishes name values of its main graph.
        wishes: what to watch; one calibrator per tensor.
        data: batches; gone through once per group of tensors that fit memory.
        registry: where calibrators are found.
        options: of the session.
        state: outputs fed back to inputs, see onnxq.state.
        max_ram: bytes that weights and fetched tensors may take together; None for 128 MiB of fetched tensors.
        on_batch: called before each batch with its number, counted from 1 over all passes.
    Raises:
        RecipeError: an unknown calibrator, parameter or state name.
        PlanError: two different wishes for one tensor.
        DataError: bad batches (see onnxq.data), or passes that differ in length.
        PluginError: a calibrator failed.
        SessionError: onnxruntime fails on the model or a batch.
    """
    watchers, unobserved = _watchers(model, wishes, registry)
    pairs = state_pairs(model.ir.graph, state)
    with scratch_copy(model) as scratch:
        loop = StateLoop(model.ir.graph, pairs)
        groups = _groups(scratch, watchers, data, options, loop=loop, budget=_budget(model, max_ram))
        batches = 0
        for number, group in enumerate(groups):
            count = 0
            for count in _pass(scratch, group, data, options, StateLoop(model.ir.graph, pairs)):
                on_batch(number * batches + count)
            if number and count != batches:
                raise DataError(
                    f"--data {data.origin}: gave {batches} batches at first and {count} in a later pass; "
                    "every pass must give the same batches"
                )
            batches = count
    for watcher in watchers:
        watcher.finish()
    unobserved |= {watcher.wish.tensor: watcher.problem for watcher in watchers if watcher.problem is not None}
    observed = {watcher.wish.tensor: watcher.observation() for watcher in watchers if watcher.problem is None}
    return Evidence(model.fingerprint, data.origin, batches, MappingProxyType(observed), MappingProxyType(unobserved))


def float_activations(model: Model) -> tuple[str, ...]:
    """Every value of the main graph that is computed or fed and may hold floats, in graph order."""
    graph = model.ir.graph
    values = [*graph.inputs, *(output for node in graph for output in node.outputs)]
    return tuple(
        value.name
        for value in values
        if value.name and value.const_value is None and (value.dtype is None or value.dtype in FLOAT_TYPES)
    )


def masked_tensors(graph: ir.Graph) -> frozenset[str]:
    """Values that may hold attention-mask values: see 3 in the module's docstring."""
    stack = [node.inputs[0] for node in graph if node.op_type in ("Softmax", "LogSoftmax")]
    found: dict[str, ir.Value] = {}
    while stack:
        value = stack.pop()
        if value is None or not value.name or value.name in found:
            continue
        found[value.name] = value
        producer = value.producer()
        if producer is not None and producer.domain == "" and producer.op_type in _KEEPS_MASKS:
            stack.extend(producer.inputs)
    return frozenset(found)


def _watchers(model: Model, wishes: Sequence[Wish], registry: Registry) -> tuple[list[Watcher], dict[str, str]]:
    """One watcher per tensor, in graph order; and the tensors that cannot be watched, with the reason."""
    distinct: dict[str, Wish] = {}
    for wish in wishes:
        known = distinct.setdefault(wish.tensor, wish)
        if known != wish:
            raise PlanError(
                f"tensor '{wish.tensor}' is wished for twice, as {known.calibrator} (axis {known.axis}) and as "
                f"{wish.calibrator} (axis {wish.axis}); one calibrator watches a tensor"
            )
    masked = masked_tensors(model.ir.graph)
    plugins = {text: registry.calibrator(parse_choice(text).name) for text in {w.calibrator for w in wishes}}
    reasons = _unfetchable(model, distinct)
    watchers = []
    for name in _main_values(model.ir.graph):
        if name in distinct and name not in reasons:
            wish = distinct[name]
            plugin = plugins[wish.calibrator]
            watchers.append(Watcher(wish, plugin, new_calibrator(plugin, wish.calibrator), name in masked))
    return watchers, reasons


def _main_values(graph: ir.Graph) -> Iterator[str]:
    """Names of inputs and computed values of the main graph, in order."""
    for value in (*graph.inputs, *(output for node in graph for output in node.outputs)):
        if value.name:
            yield value.name


def _unfetchable(model: Model, wishes: Mapping[str, Wish]) -> dict[str, str]:
    main = set(_main_values(model.ir.graph))
    inner = {
        value.name
        for graph in all_graphs(model.ir)
        if graph is not model.ir.graph
        for node in graph
        for value in node.outputs
    }
    reasons = {}
    for name in wishes:
        if name in model.ir.graph.initializers:
            reasons[name] = "is a constant; its values are known without calibration"
        elif name in inner:
            reasons[name] = "lies inside a subgraph of If, Loop or Scan, whose values onnxruntime cannot hand out"
        elif name not in main:
            reasons[name] = "the normalised graph has no such value"
    return reasons


def _budget(model: Model, max_ram: int | None) -> int:
    """Bytes of tensors to fetch at once: they exist twice, in onnxruntime's arena and as arrays."""
    if max_ram is None:
        return _FETCHED_AT_ONCE
    return max(0, max_ram - weight_bytes(model.ir)) // 2


def _groups(
    scratch: Scratch,
    watchers: Sequence[Watcher],
    data: Data,
    options: SessionOptions,
    *,
    loop: StateLoop,
    budget: int,
) -> list[list[Watcher]]:
    """Cut the watchers into groups whose tensors stay below the budget in the first batch, at least one each.

    Shapes come from one run that fetches nothing else.
    """
    session, shapes = scratch.session(options, (), shapes_of=[watcher.wish.tensor for watcher in watchers])
    first = next(iter(data.batches()))
    sizes = session.run(loop.complete(first), list(shapes.values())) if shapes else {}
    groups: list[list[Watcher]] = [[]]
    filled = 0
    for watcher in watchers:
        size = 4 * int(np.prod(sizes[shapes[watcher.wish.tensor]], dtype=np.int64))
        if groups[-1] and filled + size > budget:
            groups.append([])
            filled = 0
        groups[-1].append(watcher)
        filled += size
    return groups


def _pass(
    scratch: Scratch, group: Sequence[Watcher], data: Data, options: SessionOptions, loop: StateLoop
) -> Iterator[int]:
    """Show every batch to a group of watchers; yields the number of each batch before it is run."""
    wanted = [watcher.wish.tensor for watcher in group]
    session, _ = scratch.session(options, [*wanted, *loop.outputs])
    for index, feed in enumerate(data.batches()):
        yield index + 1
        complete = loop.complete(feed)
        fetched = session.run(complete, list(dict.fromkeys([*wanted, *loop.outputs])))
        loop.keep(fetched)
        for watcher in group:
            watcher.see(fetched.pop(watcher.wish.tensor), index)
