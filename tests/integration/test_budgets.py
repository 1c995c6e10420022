"""Budgets: convert chooses bits and blocks by itself, and what it promises is what it writes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import onnxq as run
from command_line import report_of
from onnx import TensorProto, helper, numpy_helper
from tiny_models import feeds_of, transformer

import onnxq
from onnxq.allotment import Unit, units, variants
from onnxq.data import Data
from onnxq.decide import decide
from onnxq.model import load
from onnxq.normalise import normalise
from onnxq.plugin.registry import Registry
from onnxq.recipe import Recipe
from onnxq.sensitivity import measure_sensitivity
from onnxq.session import SessionOptions
from onnxq.survey import survey_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    onnx.save(transformer(), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


@pytest.fixture
def data(tmp_path: Path) -> str:
    np.savez(tmp_path / "data.npz", **feeds_of(transformer(), batch=20))
    return str(tmp_path / "data.npz")


@pytest.mark.parametrize("target", [3.2, 4.7])
def test_the_target_is_kept_and_used_up(model: Path, data: str, tmp_path: Path, target: float) -> None:
    report = onnxq.convert(model, tmp_path / "out.onnx", data=data, target_bpw=target, table_bits="float")
    assert target - 0.6 < report.file_bits_per_weight <= target
    fused = {site.decision.scheme for site in report.sites if site.decision.site.node[-2:] in ("/q", "/k", "/v")}
    assert len(fused) == 1


def test_more_bits_do_less_damage(model: Path, data: str, tmp_path: Path) -> None:
    kl = []
    for target in (2.6, 5.0, 8.0):
        report = onnxq.convert(model, tmp_path / f"{target}.onnx", data=data, target_bpw=target)
        assert report.verdict is not None
        kl.append(report.verdict.outputs["logits"].kl)
    assert kl == sorted(kl, reverse=True)
    assert kl[0] > 10 * kl[-1]


def test_from_the_command_line_with_and_without_data(model: Path, data: str, tmp_path: Path) -> None:
    for given in ([], ["--data", data]):
        report = tmp_path / "report.json"
        done = run("convert", model, "--overwrite", "--target-bpw", "5", *given, "--report", report)
        assert done.code == 0, done.err
        assert report_of(report)["file_bits_per_weight"] <= 5
    done = run("inspect", model, "--target-bpw", "5")
    assert done.code == 0
    assert "uint" in done.out
    done = run("convert", model, "--target-bpw", "5", "--bits", "3", "--overwrite")
    assert (done.code, done.error) == (
        2,
        "Error: recipe: target_bpw chooses the bits; drop bits 3, or fix those of some nodes by an override",
    )


def test_a_size_is_kept_and_one_that_was_missed_does_not_pass(model: Path, tmp_path: Path) -> None:
    report = onnxq.convert(model, tmp_path / "out.onnx", target_size="46kB", table_bits="float")
    assert report.output_bytes == (tmp_path / "out.onnx").stat().st_size <= 46_000
    assert report.passed
    assert not replace(report, output_bytes=46_001).passed
    looser = onnxq.convert(model, tmp_path / "looser.onnx", target_size="48kB", table_bits="float")
    assert looser.file_bits_per_weight > report.file_bits_per_weight
    with pytest.raises(
        onnxq.RecipeError, match=r"target_size=20kB, \d+ bytes for the rest: the smallest that this mode"
    ):
        onnxq.convert(model, tmp_path / "never.onnx", target_size="20kB", table_bits="float")


def two_branches(tmp_path: Path) -> Path:
    """y = x @ loud + 0.5 * (Relu(x) @ quiet): equal weights, unequal influence."""
    weight = np.random.default_rng(3).standard_normal((64, 32)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "loud"], ["a"], name="/loud"),
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("MatMul", ["r", "quiet"], ["b"], name="/quiet"),
        helper.make_node("Mul", ["b", "small"], ["c"]),
        helper.make_node("Add", ["a", "c"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "two",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 32])],
        [
            numpy_helper.from_array(weight, "loud"),
            numpy_helper.from_array(weight[::-1].copy(), "quiet"),
            numpy_helper.from_array(np.float32(0.5), "small"),
        ],
    )
    path = tmp_path / "two.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


def sensitivities(path: Path, registry: Registry, data: Data | None) -> dict[str, tuple[Unit, tuple[float, ...]]]:
    recipe = Recipe(target_bpw=4)
    model = normalise(load(path), opset=25)
    survey = survey_model(model)
    drafts = [decide(model, survey, variant, registry) for variant in variants(recipe, data=False)]
    found = measure_sensitivity(model, units(model, drafts), registry, data=data, options=SessionOptions(), state={})
    return {unit.nodes[0]: (unit, costs) for unit, costs in found.costs.items()}


def test_sensitivity_is_the_noise_at_the_output(tmp_path: Path, registry: Registry) -> None:
    path = two_branches(tmp_path)
    rows = np.random.default_rng(4).standard_normal((256, 64)).astype(np.float32)
    found = sensitivities(path, registry, Data("rows", lambda: iter([{"x": rows}])))
    for name in ("/loud", "/quiet"):
        unit, costs = found[name]
        for option, cost in zip(unit.options, costs, strict=True):
            scheme = option[0].scheme
            if (scheme.bits, scheme.block_size) not in ((4, 32), (3, 128)):  # the one that is measured, and another
                continue
            others = "loud" if name == "/quiet" else "quiet"
            report = onnxq.convert(
                path,
                tmp_path / "one.onnx",
                overwrite=True,
                skip=[others],
                bits=scheme.bits,
                block_size=scheme.block_size,
                compute="float",
                data=_saved(tmp_path, rows),
            )
            assert report.verdict is not None
            measured = 10 ** (-report.verdict.outputs["y"].sqnr_db / 10)
            assert cost == pytest.approx(measured, rel=0.4), (name, scheme)
    (_, loud), (_, quiet) = found["/loud"], found["/quiet"]
    assert loud == pytest.approx(
        [8 * cost for cost in quiet], rel=0.2
    )  # a quarter of the power, Relu lets half through


def test_without_data_equal_weights_cost_alike(tmp_path: Path, registry: Registry) -> None:
    found = sensitivities(two_branches(tmp_path), registry, None)
    for loud, quiet in zip(found["/loud"][1], found["/quiet"][1], strict=True):
        assert loud == pytest.approx(quiet, rel=0.2)


def _saved(folder: Path, rows: np.ndarray) -> str:
    np.savez(folder / "rows.npz", x=rows)
    return str(folder / "rows.npz")
