"""Bench: latency of models against each other, interleaved in one process so that noise hits all alike."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnxq.qdq.layout import IntegerNode
from onnxq.session import Feed, Session, SessionOptions, node_times

__all__ = ["Latency", "Slower", "measure_latency", "slower_nodes"]

_WARM_UP = 3
_ROUNDS = 30
_BUDGET_S = 20.0


@dataclass(frozen=True, slots=True)
class Latency:
    """Latency of one contestant, in milliseconds, over all rounds."""

    median_ms: float
    fastest_ms: float
    slowest_ms: float
    rounds: int


def measure_latency(contestants: Mapping[str, Session], feed: Feed) -> dict[str, Latency]:
    """Run all contestants in turn on the same feed: 3 rounds to warm up, then 30, or what fits in 20 seconds.

    At least 5 rounds are always measured.
    """
    times: dict[str, list[float]] = {name: [] for name in contestants}
    start = time.perf_counter()
    for index in range(_WARM_UP + _ROUNDS):
        for name, session in contestants.items():
            begin = time.perf_counter()
            session.run(feed)
            if index >= _WARM_UP:
                times[name].append((time.perf_counter() - begin) * 1e3)
        if index >= _WARM_UP + 5 and time.perf_counter() - start > _BUDGET_S:
            break
    return {name: Latency(float(np.median(rows)), min(rows), max(rows), len(rows)) for name, rows in times.items()}


@dataclass(frozen=True, slots=True)
class Slower:
    """An integer node that takes longer than in the float model, its own Q, DQ and absorbed nodes counted."""

    node: str
    kernel: str
    float_ms: float
    integer_ms: float


_PROFILED_RUNS = 15
_NOTEWORTHY = 1.2
"""Ratio of medians from which a node counts as slower; below, two runs of one model differ as much."""

_SUFFIX = re.compile(r"(_token_\d+|_nchwc)+$")


def slower_nodes(
    reference: Path, quantized: Path, integers: Sequence[IntegerNode], feed: Feed, options: SessionOptions
) -> tuple[Slower, ...]:
    """Integer nodes that lose against float, the most costly first.

    Args:
        reference: the float model file.
        quantized: made from it.
        integers: the nodes to compare; one whose float time cannot be told (fused under another name) is left out.
        feed: one batch.
        options: of both sessions.
    """
    before = _by_origin(node_times(reference, options, feed, runs=_PROFILED_RUNS))
    after = _by_origin(node_times(quantized, options, feed, runs=_PROFILED_RUNS))
    found = []
    for integer in integers:
        # onnxruntime calls a float convolution in its own layout by the name of its output
        names = {integer.node, *integer.absorbs, *integer.outputs}
        float_ms = sum(before.get(name, 0.0) for name in names)
        conversions = [f"{name}/{op}" for name in integer.outputs for op in ("QuantizeLinear", "DequantizeLinear")]
        conversions += [f"{name}/QuantizeLinear" for name in integer.inputs]
        integer_ms = sum(after.get(name, 0.0) for name in (integer.node, *conversions))
        if 0 < _NOTEWORTHY * float_ms < integer_ms:
            found.append(Slower(integer.node, integer.kernel, float_ms, integer_ms))
    return tuple(sorted(found, key=lambda slower: slower.float_ms - slower.integer_ms))


def _by_origin(times: Mapping[str, float]) -> dict[str, float]:
    """Times by the name that the node had before onnxruntime changed its layout."""
    named: dict[str, float] = {}
    for name, milliseconds in times.items():
        origin = _SUFFIX.sub("", name)
        named[origin] = named.get(origin, 0.0) + milliseconds
    return named
