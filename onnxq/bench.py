"""Bench: latency of models against each other, interleaved in one process so that noise hits all alike."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from onnxq.session import Feed, Session

__all__ = ["Latency", "measure_latency"]

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
