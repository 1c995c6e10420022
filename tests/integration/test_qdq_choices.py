"""What decides whether a network runs on codes: its convolutions, the target, the user, the evidence."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import graph, model, node, value

from onnxq import pipeline
from onnxq.collect import collect
from onnxq.errors import DataError, RecipeError
from onnxq.recipe import recipe_from

RNG = np.random.default_rng(0)
C = 16


def weights(**shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    return {name: RNG.standard_normal(shape).astype(np.float32) / 4 for name, shape in shapes.items()}


def images() -> onnx.ModelProto:
    """Two convolutions that share their filters, a Relu, and a convolution behind them."""
    nodes = [
        node("Conv", ["x", "W"], ["a"], name="first"),
        node("Relu", ["a"], ["r"], name="relu"),
        node("Conv", ["r", "W"], ["b"], name="second"),
        node("Conv", ["b", "V"], ["y"], name="third"),
    ]
    constants = weights(W=(C, C, 1, 1), V=(C, C, 3, 3))
    return model(graph(nodes, [value("x", [1, C, 8, 8])], [value("y", [None] * 4)], constants))


def mixed() -> onnx.ModelProto:
    """A small convolution in front of much larger matrix products."""
    nodes = [
        node("Conv", ["x", "W"], ["a"], name="conv"),
        node("MatMul", ["a", "U"], ["u"], name="up"),
        node("MatMul", ["u", "D"], ["y"], name="down"),
    ]
    constants = weights(W=(C, C, 3, 3), U=(64, 256), D=(256, 64))
    return model(graph(nodes, [value("x", [1, C, 10, 66])], [value("y", [None] * 4)], constants))


def saved(folder: Path, proto: onnx.ModelProto) -> Path:
    onnx.save(proto, folder / "model.onnx")
    return folder / "model.onnx"


def formats(report) -> dict[str, str]:
    return {site.decision.site.node: site.decision.format for site in report.sites}


def test_a_network_of_convolutions_runs_on_codes_by_itself(tmp_path):
    report = pipeline.convert(saved(tmp_path, images()), tmp_path / "q.onnx")
    assert formats(report) == {"first": "qdq", "second": "qdq", "third": "qdq"}
    assert {item.found for item in report.integers} == {"QLinearConv"}


def test_shared_filters_are_stored_once(tmp_path):
    report = pipeline.convert(saved(tmp_path, images()), tmp_path / "q.onnx")
    sizes = {site.decision.site.node: site.stored_bytes for site in report.sites}
    assert sorted((sizes["first"] > 0, sizes["second"] > 0)) == [False, True]


def test_a_skip_of_one_reader_keeps_shared_filters_float(tmp_path):
    recipe = recipe_from(skip=("first",))
    report = pipeline.convert(saved(tmp_path, images()), tmp_path / "q.onnx", recipe=recipe)
    assert formats(report) == {"third": "qdq"}
    reasons = {item.node: item.reason for item in report.floats}
    assert reasons["first"] == "--skip first"
    assert reasons["second"] == "'first' shares its weight and stays float"


def test_matrix_products_beside_a_convolution_are_packed(tmp_path):
    path = saved(tmp_path, mixed())
    report = pipeline.convert(path, tmp_path / "q.onnx")
    assert formats(report) == {"up": "packed", "down": "packed"}
    assert report.integers == ()
    asked = pipeline.convert(path, tmp_path / "asked.onnx", recipe=recipe_from(format="qdq"))
    assert formats(asked) == {"conv": "qdq", "up": "qdq", "down": "qdq"}


def test_cuda_has_no_integer_kernels(tmp_path):
    path = saved(tmp_path, images())
    report = pipeline.convert(path, tmp_path / "q.onnx", recipe=recipe_from(target="cuda"))
    assert report.integers == ()
    with pytest.raises(RecipeError, match="use --format packed, or --target cpu"):
        pipeline.convert(path, tmp_path / "no.onnx", recipe=recipe_from(target="cuda", format="qdq"))
    assert not (tmp_path / "no.onnx").exists()


@pytest.mark.parametrize(
    ("target", "wish", "largest"), [("portable", None, 64), ("cpu", True, 64), ("cpu", False, 128)]
)
def test_reduced_range_keeps_weights_to_seven_bits(tmp_path, target, wish, largest):
    recipe = recipe_from(target=target, reduce_range=wish, method="rtn")
    report = pipeline.convert(saved(tmp_path, images()), tmp_path / "q.onnx", recipe=recipe)
    assert report.reduce_range == (largest == 64)
    codes = [
        onnx.numpy_helper.to_array(item)
        for item in onnx.load(tmp_path / "q.onnx").graph.initializer
        if item.name.endswith(".codes")
    ]
    assert largest - 2 <= max(np.abs(array.astype(int)).max() for array in codes) <= largest


def test_evidence_gives_the_same_ranges_as_calibrating_here(tmp_path):
    path = saved(tmp_path, images())
    collect(path, tmp_path / "ranges.npz")
    here = pipeline.convert(path, tmp_path / "here.onnx")
    there = pipeline.convert(path, tmp_path / "there.onnx", evidence=tmp_path / "ranges.npz")
    assert there.activations == here.activations
    assert len(here.activations) == 4


def test_evidence_of_another_model_is_refused(tmp_path):
    collect(saved(tmp_path, images()), tmp_path / "ranges.npz")
    with pytest.raises(DataError, match="collected on another model"):
        pipeline.convert(saved(tmp_path, mixed()), tmp_path / "q.onnx", evidence=tmp_path / "ranges.npz")


def test_an_override_sets_one_tensor_apart(tmp_path):
    rule = {"nodes": "^third$", "calibrator": "minmax", "activation_symmetric": True}
    report = pipeline.convert(saved(tmp_path, images()), tmp_path / "q.onnx", recipe=recipe_from(override=(rule,)))
    by_tensor = {decision.tensor: decision for decision in report.activations}
    assert (by_tensor["y"].reason, by_tensor["y"].zero_point) == ("minmax", 128)
    assert (by_tensor["b"].reason, by_tensor["b"].format.symmetric) == ("mse", False)


def test_bench_names_the_nodes_where_integers_lose(tmp_path):
    """A convolution over a single position: quantizing its input alone takes longer than the float product."""
    constants = weights(W=(4, 4, 1, 1), V=(256, 256, 3, 3), U=(256, 4, 1, 1))
    nodes = [
        node("Conv", ["x", "W"], ["a"], name="tiny"),
        node("Tanh", ["a"], ["t"], name="tanh"),
        node("Conv", ["t", "U"], ["u"], name="wide"),
        node("Conv", ["u", "V"], ["y"], name="large"),
    ]
    proto = model(graph(nodes, [value("x", [1, 4, 16, 16])], [value("y", [None] * 4)], constants))
    report = pipeline.convert(saved(tmp_path, proto), tmp_path / "q.onnx", bench=True)
    assert all(item.integer_ms > 1.2 * item.float_ms > 0 for item in report.slower)
    assert "large" not in {item.node for item in report.slower}
    losses = [item.integer_ms - item.float_ms for item in report.slower]
    assert losses == sorted(losses, reverse=True)


def test_a_model_whose_names_look_like_ours(tmp_path):
    constants = weights(W=(C, C, 1, 1), **{"x.scale": (1, C, 1, 1), "x.zero_point": (C, C, 3, 3)})
    nodes = [
        node("Conv", ["x", "W"], ["a"], name="first"),
        node("Mul", ["a", "x.scale"], ["m"], name="mul"),
        node("Conv", ["m", "x.zero_point"], ["y"], name="last"),
    ]
    proto = model(graph(nodes, [value("x", [1, C, 8, 8])], [value("y", [None] * 4)], constants))
    report = pipeline.convert(saved(tmp_path, proto), tmp_path / "q.onnx")
    assert {item.found for item in report.integers} == {"QLinearConv", "QLinearMul"}
    assert report.verdict.outputs["y"].sqnr_db > 20
