"""Synthetic feeds: types, fixed and open dims, index ranges; a stand-in session decides what runs."""

import numpy as np
import onnx
import pytest
from graphs import graph, in_memory, node, value

from onnxq.errors import DataError, SessionError
from onnxq.session import InputSpec
from onnxq.synthetic import synthetic_feeds


class Stand:
    """A session that accepts feeds by a rule; onnxruntime is not needed to choose sizes."""

    outputs = ("y",)

    def __init__(self, inputs, accepts=lambda feed: True) -> None:
        self.inputs = inputs
        self._accepts = accepts

    def run(self, feed, outputs):
        if not self._accepts(feed):
            raise SessionError("does not fit")
        return {}


def spec(name: str, dtype, *shape) -> InputSpec:
    return InputSpec(name, np.dtype(dtype), shape)


def main_graph(nodes=(), inputs=(), weights=None):
    nodes = nodes or [node("Identity", ["x"], ["y"])]
    inputs = inputs or [value("x", None)]
    proto = onnx.helper.make_model(graph(nodes, inputs, [value("y", None)], weights))
    return in_memory(proto).ir.graph


def one(specs, accepts=lambda feed: True, main=None) -> dict:
    return synthetic_feeds(main or main_graph(), Stand(specs, accepts), count=1, seed=0)[0]


def test_fixed_dims_are_kept_and_one_symbol_has_one_size():
    feed = one([spec("a", "float32", "N", 3, "W"), spec("b", "int64", "N", "W")])
    batch, channels, width = feed["a"].shape
    assert channels == 3
    assert feed["b"].shape == (batch, width)
    assert (feed["a"].dtype, feed["b"].dtype) == (np.float32, np.int64)


def test_sums_of_symbols_are_added_up():
    feed = one([spec("ids", "int64", "B", "S"), spec("past", "float32", "B", "P"), spec("mask", "int64", "B", "P + S")])
    assert feed["mask"].shape[1] == feed["ids"].shape[1] + feed["past"].shape[1]
    assert (feed["mask"] == 1).all()


def test_sizes_are_tried_until_the_model_runs():
    feed = one([spec("x", "float32", None, 1, None, None)], lambda feed: feed["x"].shape[2:] == (32, 32))
    assert feed["x"].shape == (1, 1, 32, 32)


def test_no_size_that_fits_names_the_next_step():
    with pytest.raises(DataError, match=r"no synthetic input fits this model \(does not fit\); give real inputs"):
        one([spec("x", "float32", None)], lambda feed: False)


def test_strings_are_invented_too():
    assert one([spec("x", "str", 2)])["x"].tolist() == ["a", "a"]


def test_what_is_no_number_and_no_string_cannot_be_invented():
    with pytest.raises(DataError, match="input 'x' holds datetime64, which cannot be invented; give --data"):
        one([spec("x", "datetime64", 1)])


def test_a_dim_fixed_at_0_stays_0():
    assert one([spec("x", "float32", 0, 3), spec("open", "float32", -1, 3)])["x"].shape == (0, 3)


def test_an_empty_table_leaves_the_verdict_to_the_session():
    main = main_graph([node("Gather", ["t", "x"], ["y"])], [value("x", ["N"], np.int64)], {"t": np.zeros((0, 4), "f")})
    with pytest.raises(DataError, match="no synthetic input fits this model"):
        one([spec("x", "int64", "N")], lambda feed: False, main=main)


def test_indices_stay_inside_the_table():
    weights = {"table": np.zeros((7, 4), np.float32)}
    nodes = [node("Cast", ["x"], ["i"], to=onnx.TensorProto.INT64), node("Gather", ["table", "i"], ["y"])]
    main = main_graph(nodes, [value("x", ["N", "S"], np.int32)], weights)
    x = one([spec("x", "int32", 50, 50)], main=main)["x"]
    assert set(np.unique(x)) == set(range(7))


def test_compared_values_are_among_the_choices():
    weights = {"rates": np.array([8000, 16000], np.int64)}
    main = main_graph([node("Equal", ["x", "rates"], ["y"])], [value("x", [50], np.int64)], weights)
    assert set(np.unique(one([spec("x", "int64", 50)], main=main)["x"])) <= {8000, 16000}


def test_feeds_differ_in_values_follow_the_seed_and_agree_in_shape():
    stand = Stand([spec("x", "float32", None, 5)])
    one, two = synthetic_feeds(main_graph(), stand, count=2, seed=3)
    assert one["x"].shape == two["x"].shape
    assert (one["x"] != two["x"]).all()
    again = synthetic_feeds(main_graph(), stand, count=2, seed=3)
    np.testing.assert_array_equal(again[1]["x"], two["x"])


def test_a_switch_is_seen_on_both_sides_and_a_boolean_mask_stays_open():
    feeds = synthetic_feeds(main_graph(), Stand([spec("c", "bool"), spec("mask", "bool", 2, 6)]), count=2, seed=0)
    assert [bool(feed["c"]) for feed in feeds] == [True, False]
    assert all(feed["mask"].all() for feed in feeds)
