"""Batches: which part of the data calibrates and which verifies; the last fifth is kept for verification."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from types import MappingProxyType

from onnxq.data import Data, held_out, open_data
from onnxq.data_free import RANDOM, calibration_data
from onnxq.model import Model
from onnxq.recipe import Recipe
from onnxq.session import Feed, Session, SessionOptions
from onnxq.state import StateLoop, state_pairs
from onnxq.synthetic import synthetic_feeds

__all__ = ["calibration_batches", "feeds_for"]

_SYNTHETIC_BATCHES = 4
_NO_STATE: Mapping[str, str] = MappingProxyType({})


def feeds_for(
    model: Model, data: str | None, *, seed: int, options: SessionOptions, state: Mapping[str, str] = _NO_STATE
) -> tuple[Iterator[Feed], int, str]:
    """Batches to verify on, their number, and what to call them; `state` as in Recipe."""
    session = Session(model.path, options)
    if data is None or data == RANDOM:
        feeds = synthetic_feeds(model.ir.graph, session, count=_SYNTHETIC_BATCHES, seed=seed)
        return iter(feeds), len(feeds), f"{len(feeds)} synthetic batches (random values; give --data for real ones)"
    loop = StateLoop(model.ir.graph, state_pairs(model.ir.graph, state))
    kept, count, total = held_out(open_data(data, session.inputs, state_inputs=loop.inputs))
    note = "the only batch" if total == 1 else f"the last {count} of {total} batches"
    return loop.completed(kept.batches(), session), count, f"{note} of {data}"


def calibration_batches(model: Model, data: str | None, *, recipe: Recipe, options: SessionOptions) -> tuple[Data, int]:
    """All batches but those kept for verification (unless there is only one), and their number."""
    opened = calibration_data(data, model, options=options, seed=recipe.seed, state=recipe.state)
    if data is None or data == RANDOM:
        return opened, opened.count()
    _, kept, total = held_out(opened)
    count = max(1, total - kept)
    return Data(opened.origin, lambda: islice(opened.batches(), count)), count
