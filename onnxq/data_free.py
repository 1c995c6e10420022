"""Data-free: batches for users who have none, made from the model alone.

1. A network whose BatchNormalizations still carry their statistics gets pictures fitted to these (onnxq.zero_shot).
2. Any other gets random values that respect types, index ranges and open dims (onnxq.synthetic).

What was done, and how well it fits, stands in `Data.origin`, so that every report says it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from onnxq.data import Data, open_data
from onnxq.model import Model, load
from onnxq.session import Feed, Session, SessionOptions
from onnxq.state import state_pairs
from onnxq.synthetic import synthetic_feeds
from onnxq.zero_shot import fit_pictures

__all__ = ["RANDOM", "calibration_data", "data_free"]

RANDOM = "random"
"""`--data random` asks for data-free batches by name; a folder of that name is `./random`."""

_PICTURES, _BATCHES = 32, 8
_NO_STATE: Mapping[str, str] = MappingProxyType({})


def calibration_data(
    origin: str | None,
    model: Model,
    *,
    options: SessionOptions,
    seed: int,
    state: Mapping[str, str] = _NO_STATE,
    on_trial: Callable[[int], None] = lambda index: None,
) -> Data:
    """Batches to calibrate on: the user's, or data-free ones.

    Args:
        origin: the --data argument; None or "random" for data-free batches.
        model: at any stage.
        options: of the sessions that data-free batches need.
        seed: of everything random.
        state: outputs fed back to inputs, see onnxq.state; batches need not bring those inputs.
        on_trial: called before each run of a fit, with its number.
    Raises:
        DataError: the data cannot be read or does not fit, or none can be invented.
        RecipeError: `state` names what the model does not have.
    """
    fed_back = set(state_pairs(model.ir.graph, state).values())
    if origin not in (None, RANDOM):
        assert origin is not None
        return open_data(origin, Session(model.path, options).inputs, state_inputs=fed_back)
    data = data_free(model, options=options, seed=seed, on_trial=on_trial)
    without_state = [{name: array for name, array in feed.items() if name not in fed_back} for feed in data.batches()]
    return _of(without_state, data.origin)


def data_free(
    model: Model, *, options: SessionOptions, seed: int, on_trial: Callable[[int], None] = lambda index: None
) -> Data:
    """Batches made from the model alone (cases 1 and 2).

    Its file is read again: normalisation folds BatchNormalizations, and their statistics with them.

    Raises:
        DataError: no size of the open dims works.
    """
    model = load(model.path, custom_op_libraries=model.custom_op_libraries)
    session = Session(model.path, options)
    feeds = synthetic_feeds(model.ir.graph, session, count=_BATCHES, seed=seed)
    fit = fit_pictures(model, feeds[0], options, count=_PICTURES, seed=seed, on_trial=on_trial)
    if fit is None:
        return _of(feeds, f"{len(feeds)} batches of random values (real data would do better; give --data)")
    return _of(
        fit.feeds,
        f"{len(fit.feeds)} pictures fitted to the statistics of {fit.layers} BatchNormalizations (divergence "
        f"{fit.start:.2f} -> {fit.reached:.2f} nats per channel; real data would do better; give --data)",
    )


def _of(feeds: Sequence[Feed], origin: str) -> Data:
    return Data(origin, lambda: iter(feeds))
