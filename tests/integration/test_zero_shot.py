"""Zero-shot: pictures come closer to a network's stored statistics than noise does, and ranges follow."""

from collections.abc import Iterator

import numpy as np
import onnx
import pytest
from graphs import graph, model, node, value

from onnxq.data_free import calibration_data, data_free
from onnxq.dead_leaves import paint, random_look
from onnxq.model import Model, load
from onnxq.session import Session, SessionOptions
from onnxq.zero_shot import fit_pictures, statistics

OPTIONS = SessionOptions(threads=1)
SIZE = 24


def real_pictures(scale: float) -> Iterator[np.ndarray]:
    """What the network was "trained" on: pictures of one contrast and brightness."""
    rng = np.random.default_rng(99)
    for _ in range(16):
        yield paint(random_look(rng, channels=3, contrast=scale, brightness=1.5), (1, 3, SIZE, SIZE))


def trained_network(path, *, scale: float) -> Model:
    """Conv, BatchNormalization, Relu, twice, with the statistics that the pictures really have."""
    rng = np.random.default_rng(0)
    weights = {
        "w1": rng.standard_normal((8, 3, 3, 3)).astype(np.float32),
        "w2": rng.standard_normal((6, 8, 3, 3)).astype(np.float32),
    }
    for layer, channels in ((1, 8), (2, 6)):
        weights[f"gamma{layer}"] = np.ones(channels, np.float32)
        weights[f"beta{layer}"] = np.full(channels, 0.3, np.float32)
        weights[f"mean{layer}"] = np.zeros(channels, np.float32)
        weights[f"variance{layer}"] = np.ones(channels, np.float32)
    nodes = []
    for layer, source in ((1, "x"), (2, "r1")):
        normal = [f"c{layer}", *(f"{kind}{layer}" for kind in ("gamma", "beta", "mean", "variance"))]
        nodes += [
            node("Conv", [source, f"w{layer}"], [f"c{layer}"], strides=[2, 2]),
            node("BatchNormalization", normal, [f"n{layer}"]),
            node("Relu", [f"n{layer}"], [f"r{layer}"]),
        ]
    inputs, outputs = [value("x", ["N", 3, SIZE, SIZE])], [value("r2", ["N", 6, "H", "W"])]
    for layer in (1, 2):  # the first layer's statistics decide what the second one sees
        proto = model(graph(nodes, inputs, outputs, weights))
        onnx.save(proto, path)
        session = Session(path, OPTIONS, extra_outputs=[f"c{layer}"])
        seen = np.concatenate([session.run({"x": x}, [f"c{layer}"])[f"c{layer}"] for x in real_pictures(scale)])
        weights[f"mean{layer}"] = seen.mean(axis=(0, 2, 3))
        weights[f"variance{layer}"] = seen.var(axis=(0, 2, 3))
    onnx.save(model(graph(nodes, inputs, outputs, weights)), path)
    return load(path)


def feed_of_zeros() -> dict:
    return {"x": np.zeros((1, 3, SIZE, SIZE), np.float32)}


@pytest.mark.parametrize("scale", [0.5, 1.0, 60.0])
def test_pictures_meet_the_statistics_where_noise_does_not(tmp_path, scale):
    network = trained_network(tmp_path / "model.onnx", scale=scale)
    fit = fit_pictures(network, feed_of_zeros(), OPTIONS, count=8, seed=0, trials=60)
    assert fit is not None
    assert fit.layers == 2
    assert len(fit.feeds) == 8
    assert fit.reached < 0.1 < fit.start / 3
    made = np.concatenate([feed["x"] for feed in fit.feeds])
    real = np.concatenate(list(real_pictures(scale)))
    assert made.std() == pytest.approx(real.std(), rel=0.5)


def test_the_seed_decides_everything(tmp_path):
    network = trained_network(tmp_path / "model.onnx", scale=1.0)
    one, two, other = (
        fit_pictures(network, feed_of_zeros(), OPTIONS, count=3, seed=seed, trials=8) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one.feeds[2]["x"], two.feeds[2]["x"])
    assert (one.feeds[2]["x"] != other.feeds[2]["x"]).any()


def test_more_trials_come_closer(tmp_path):
    """The search is not decoration."""
    network = trained_network(tmp_path / "model.onnx", scale=1.0)
    few, many = (
        fit_pictures(network, feed_of_zeros(), OPTIONS, count=8, seed=0, trials=trials).reached for trials in (8, 80)
    )
    assert many < 0.7 * few


def test_a_network_without_statistics_gets_random_values(tmp_path):
    proto = model(graph([node("Relu", ["x"], ["y"])], [value("x", ["N", 3, 8, 8])], [value("y", ["N", 3, 8, 8])]))
    onnx.save(proto, tmp_path / "model.onnx")
    loaded = load(tmp_path / "model.onnx")
    assert statistics(loaded.ir.graph) == []
    data = data_free(loaded, options=OPTIONS, seed=0)
    assert data.origin == "8 batches of random values (real data would do better; give --data)"
    assert data.count() == data.count() == 8


@pytest.mark.parametrize("origin", [None, "random"])
def test_what_was_reached_is_said(tmp_path, origin):
    network = trained_network(tmp_path / "model.onnx", scale=1.0)
    data = calibration_data(origin, network, options=OPTIONS, seed=0)
    assert "32 pictures fitted to the statistics of 2 BatchNormalizations (divergence " in data.origin
    assert "real data would do better; give --data" in data.origin
    assert data.count() == 32


def test_state_is_left_to_the_loop(tmp_path):
    nodes = [node("Add", ["x", "h"], ["after"])]
    proto = model(graph(nodes, [value("x", [1, 2]), value("h", [1, 2])], [value("after", [1, 2])]))
    onnx.save(proto, tmp_path / "model.onnx")
    data = calibration_data(None, load(tmp_path / "model.onnx"), options=OPTIONS, seed=0, state={"after": "h"})
    assert all(set(feed) == {"x"} for feed in data.batches())
