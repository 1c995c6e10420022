"""Every rule on real onnxruntime: the planned kernel runs, and computes what float and the reference evaluator do."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import graph, model, node, relative_error, run, run_reference, value
from onnx import numpy_helper

from onnxq import pipeline
from onnxq.recipe import recipe_from

RNG = np.random.default_rng(0)
C = 16
SHAPE = (1, C, 12, 12)
INT64 = np.int64

ERROR = 0.05
"""Two convolutions and one operator, 8 bits each: a step is 1/255 of a range of 6 to 10 sigma, so one rounding is up to
10 / 255 / sqrt(12) = 1.1% of sigma; six of them in a row, added in squares, and doubled where a product has two
factors, stay below this. A scale that is off by a tenth does not (see the twin)."""

MIDDLE = {
    "QLinearAdd": (["Add a b m"], {}),
    "QLinearMul": (["Mul a b m"], {}),
    "QLinearMul channels": (["GlobalAveragePool a p", "Mul a p m"], {}),
    "QLinearWhere": (["Where mask a b m"], {"mask": RNG.integers(0, 2, SHAPE).astype(bool)}),
    "QLinearSigmoid": (["Sigmoid a m"], {}),
    "QLinearLeakyRelu": (["LeakyRelu a m"], {}),
    "QLinearConcat": (["Concat a b m"], {}),
    "QLinearAdd constant": (["Add a k m"], {"k": RNG.standard_normal((1, C, 12, 12)).astype(np.float32)}),
    "MaxPool": (["MaxPool a m"], {}),
    "Resize": (["Resize a none sizes m"], {"sizes": np.float32([1, 1, 2, 2])}),
    "Transpose": (["Transpose a m"], {}),
    "Slice": (["Slice a starts ends m"], {"starts": np.array([0, 0, 1, 1]), "ends": np.array([1, C, 9, 9])}),
    "Pad": (["Pad a pads m"], {"pads": np.array([0, 0, 1, 1, 0, 0, 2, 2])}),
    "Pad reflect": (["Pad a pads m reflect"], {"pads": np.array([0, 0, 1, 1, 0, 0, 2, 2])}),
    "Gather": (["Gather a rows m"], {"rows": np.array([3, 1, 2])}),
    "Split": (["Split a s t", "Add s t m"], {}),
    "Expand": (["GlobalAveragePool a p", "Expand p shape m"], {"shape": np.array([1, C, 4, 4])}),
    "Tile": (["Tile a repeats m"], {"repeats": np.array([1, 1, 1, 2])}),
    "DepthToSpace": (["DepthToSpace a d", "Concat d d d d m"], {}),
    "Reshape": (["Reshape a shape m"], {"shape": np.array([1, C, 8, 18])}),
    "Squeeze": (["Unsqueeze a axis u", "Squeeze u axis m"], {"axis": np.array([2])}),
}
SETTINGS = {
    "Concat": {"axis": 1},
    "MaxPool": {"kernel_shape": [2, 2], "strides": [2, 2]},
    "Resize": {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
    "Transpose": {"perm": [0, 1, 3, 2]},
    "Gather": {"axis": 2},
    "Split": {"axis": 1, "num_outputs": 2},
    "DepthToSpace": {"blocksize": 2},
    "LeakyRelu": {"alpha": 0.1},
}


def network(lines, constants) -> onnx.ModelProto:
    """Two convolutions, the operators, and a convolution behind them."""
    weights = {name: RNG.standard_normal((C, C, 1, 1)).astype(np.float32) / 4 for name in ("W1", "W2")}
    weights |= {name: RNG.standard_normal(C).astype(np.float32) / 4 for name in ("b1", "b2")}
    nodes = [node("Conv", ["x", f"W{i}", f"b{i}"], [out], name=f"conv_{out}") for i, out in ((1, "a"), (2, "b"))]
    for line in lines:
        op, *names = line.split()
        settings = dict(SETTINGS.get(op, {}))
        if names[-1] == "reflect":
            settings["mode"] = names.pop()
        outputs = [names.pop()]
        if op == "Split":
            outputs = [names.pop(), outputs[0]]
        nodes.append(
            node(op, ["" if name == "none" else name for name in names], outputs, name=f"the_{op}", **settings)
        )
    channels = 2 * C if "Concat a b m" in lines else C // 2 if "Split a s t" in lines else C
    weights["W3"] = RNG.standard_normal((8, channels, 1, 1)).astype(np.float32) / 4
    nodes.append(node("Conv", ["m", "W3"], ["y"], name="conv_y"))
    used = {name for item in nodes for name in item.input}
    constants = {name: array for name, array in {**weights, **constants}.items() if name in used}
    return model(graph(nodes, [value("x", SHAPE)], [value("y", [None] * 4)], constants))


def converted(folder: Path, proto: onnx.ModelProto, shape=SHAPE, **wishes):
    """The report, the quantized file, and a feed that calibration did not see."""
    onnx.save(proto, folder / "model.onnx")
    (folder / "data").mkdir()
    for index in range(6):
        np.save(folder / "data" / f"{index}.npy", RNG.standard_normal(shape).astype(np.float32))
    wishes = {"format": "qdq", "calibrator": "minmax"} | wishes
    report = pipeline.convert(
        folder / "model.onnx", folder / "q.onnx", recipe=recipe_from(**wishes), data=str(folder / "data")
    )
    return report, folder / "q.onnx", {"x": np.clip(RNG.standard_normal(shape), -2.5, 2.5).astype(np.float32)}


def assert_all_found(report):
    for item in report.integers:
        assert item.found in (
            item.planned.kernel,
            "folded away" if item.planned.kernel == item.planned.op_type else None,
        )
    assert not [warning for warning in report.warnings if "expected to run" in warning]


@pytest.mark.parametrize("case", MIDDLE)
def test_planned_kernels_run_and_compute_the_same(case, tmp_path):
    lines, constants = MIDDLE[case]
    proto = network(lines, constants)
    report, path, feed = converted(tmp_path, proto)
    assert_all_found(report)
    planned = {item.planned.node: item.planned.kernel for item in report.integers}
    assert case.split()[0] in planned.values()
    assert len([kernel for kernel in planned.values() if kernel == "QLinearConv"]) in (2, 3)
    (expected,) = run(proto, feed)
    (got,) = run(path, feed)
    assert relative_error(got, expected) < ERROR
    (reference,) = run_reference(path, feed)
    assert relative_error(got, reference) < ERROR / 3


@pytest.mark.parametrize("part", ["W1.scales", "W3.scales", "conv_a.bias_scales"])
def test_a_wrong_scale_would_be_noticed(part, tmp_path):
    proto = network(*MIDDLE["QLinearAdd"])
    _, path, feed = converted(tmp_path, proto)
    broken = onnx.load(path)
    for item in broken.graph.initializer:
        if item.name == part:
            item.CopyFrom(
                numpy_helper.from_array(
                    numpy_helper.to_array(item) * np.float32(1.1 if "bias" not in part else 2), item.name
                )
            )
    (expected,) = run(proto, feed)
    assert relative_error(run(path, feed)[0], expected) < ERROR
    assert relative_error(run(broken, feed)[0], expected) > ERROR


@pytest.mark.parametrize(
    "wishes",
    [
        {"activation_signed": True},
        {"activation_symmetric": True},
        {"activation_signed": True, "activation_symmetric": True},
        {"per_channel": False},
        {"symmetric": False},
        {"reduce_range": True},
        {"method": "rtn"},
        {"calibrator": "percentile:99.999"},
    ],
    ids=str,
)
def test_every_scheme_reaches_the_same_kernels(wishes, tmp_path):
    # onnxruntime 1.31 on x86 turns int8 activations into uint8 only where one node reads them
    lines = ["Relu a m"] if "activation_signed" in wishes else ["Relu a r", "Add r b m"]
    proto = network(lines, {})
    report, path, feed = converted(tmp_path, proto, **wishes)
    assert_all_found(report)
    assert [item.planned.kernel for item in report.integers].count("QLinearConv") == len(lines) + 1
    (expected,) = run(proto, feed)
    assert relative_error(run(path, feed)[0], expected) < (2 * ERROR if len(wishes) == 1 else 2.5 * ERROR)


def test_sixteen_bits_are_closer_and_said_to_run_in_float(tmp_path):
    proto = network(["Relu a r", "Add r b m"], {})
    report, path, feed = converted(tmp_path, proto, activation_bits=16)
    assert any("16-bit activations" in warning for warning in report.warnings)
    (expected,) = run(proto, feed)
    assert relative_error(run(path, feed)[0], expected) < ERROR / 3


def test_a_node_that_runs_in_float_against_the_plan_is_named(tmp_path):
    report, _, _ = converted(tmp_path, network(["Add a b m"], {}), activation_signed=True)
    if any(item.found == "Conv in float" for item in report.integers):  # not on ARM
        assert any("'conv_a' was expected to run as QLinearConv" in warning for warning in report.warnings)


@pytest.mark.parametrize("rank", [2, 3])
def test_products(rank, tmp_path):
    shape = (6, 128) if rank == 2 else (2, 6, 128)
    weights = {
        "W": RNG.standard_normal((128, 160)).astype(np.float32) / 11,
        "b": RNG.standard_normal(160).astype(np.float32),
        "V": RNG.standard_normal((160, 128)).astype(np.float32) / 13,
    }
    nodes = [
        node("MatMul", ["x", "W"], ["p"], name="first"),
        node("Add", ["p", "b"], ["s"], name="bias"),
        node("Relu", ["s"], ["r"], name="relu"),
        node("MatMul", ["r", "V"], ["y"], name="second"),
    ]
    proto = model(graph(nodes, [value("x", shape)], [value("y", [None] * rank)], weights))
    report, path, feed = converted(tmp_path, proto, shape)
    assert_all_found(report)
    assert {item.planned.kernel for item in report.integers} >= {"QGemm" if rank == 2 else "QLinearMatMul"}
    (expected,) = run(proto, feed)
    assert relative_error(run(path, feed)[0], expected) < ERROR
