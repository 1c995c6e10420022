"""State: pairs with and without *, zeros that fit, and what carries over from batch to batch."""

import numpy as np
import pytest
from graphs import graph, in_memory, model, node, value

from onnxq.errors import RecipeError
from onnxq.state import StateLoop, state_pairs


def cache_graph():
    """A decoder's signature: ids in, two caches that grow along axis 2."""
    past, total = ["B", 2, "P", 4], ["B", 2, "T", 4]
    main = graph(
        [
            node("Cast", ["ids"], ["x"], to=1),
            node("Concat", ["past.0", "past.0"], ["present.0"], axis=2),
            node("Concat", ["past.1", "past.1"], ["present.1"], axis=2),
        ],
        [value("ids", ["B", "S"], np.int64), value("past.0", past), value("past.1", past)],
        [value("x", ["B", "S"]), value("present.0", total), value("present.1", total)],
    )
    return in_memory(model(main)).ir.graph


def recurrent_graph(shape):
    main = graph([node("Add", ["x", "h"], ["y"])], [value("x", ["N", 3]), value("h", shape)], [value("y", shape)])
    return in_memory(model(main)).ir.graph


def test_a_star_stands_for_the_same_text():
    assert state_pairs(cache_graph(), {"present.*": "past.*"}) == {"present.0": "past.0", "present.1": "past.1"}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"presents.*": "past.*"}, "has no output 'presents"),
        ({"present.0": "pasts"}, r"has no input 'pasts' \(fed by 'present.0'\)"),
        ({"present.0": "past.0", "present.1": "past.0"}, "'past.0' is fed by two outputs"),
        ({"present.*": "past.0"}, r"no \* or one in each"),
        ({"*.*": "*.*"}, r"no \* or one in each"),
    ],
)
def test_names_that_do_not_exist(state, message):
    with pytest.raises(RecipeError, match=message):
        state_pairs(cache_graph(), state)


def test_a_cache_begins_empty_with_the_batch_size_of_the_feed():
    main = cache_graph()
    loop = StateLoop(main, state_pairs(main, {"present.*": "past.*"}))
    feed = loop.complete({"ids": np.zeros((5, 7), np.int64)})
    assert feed["past.0"].shape == (5, 2, 0, 4)
    assert feed["past.1"].dtype == np.float32


@pytest.mark.parametrize(("shape", "expected"), [([2, None, 3], (2, 1, 3)), (["N", 3], (4, 3)), (["M", 3], (1, 3))])
def test_other_open_axes_follow_the_feed_or_are_one(shape, expected):
    loop = StateLoop(recurrent_graph(shape), {"y": "h"})
    assert loop.complete({"x": np.zeros((4, 3), np.float32)})["h"].shape == expected


def test_a_batch_begins_with_its_own_state_or_goes_on():
    loop = StateLoop(recurrent_graph([1, 3]), {"y": "h"})
    x = np.ones((1, 3), np.float32)
    assert loop.complete({"x": x})["h"].tolist() == [[0, 0, 0]]
    loop.keep({"y": 2 * x, "other": x})
    assert loop.complete({"x": x})["h"].tolist() == [[2, 2, 2]]
    assert loop.complete({"x": x, "h": 7 * x})["h"].tolist() == [[7, 7, 7]]


def test_without_pairs_nothing_changes():
    loop = StateLoop(recurrent_graph([1, 3]), {})
    assert loop.outputs == ()
    assert set(loop.complete({"x": np.ones(1)})) == {"x"}


def test_completed_batches_carry_what_the_session_gave():
    class Adding:
        def run(self, feed, outputs):
            return {"y": feed["x"] + feed["h"]}

    loop = StateLoop(recurrent_graph([1, 3]), {"y": "h"})
    x = np.ones((1, 3), np.float32)
    feeds = list(loop.completed([{"x": x}, {"x": x}, {"x": x, "h": 9 * x}, {"x": x}], Adding()))
    assert [feed["h"][0, 0] for feed in feeds] == [0, 1, 9, 10]
