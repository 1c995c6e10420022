"""Every family of the zoo goes through `convert` with every method: verified, on the kernels that were predicted, every
weight taken or left with a reason, and the same result with our kernels as in stock onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from graphs import relative_error, run
from zoo import ZOO, feeds

import onnxq
from onnxq.survey import MIN_ELEMENTS

METHODS: dict[str, dict[str, Any]] = {
    "rtn at 8 bits": {"bits": 8},
    "mse": {"method": "mse"},
    "importance": {"method": "importance", "data": "batches"},
    "gptq": {"method": "gptq", "data": "batches"},
    "gptq, symmetric blocks of 16": {"method": "gptq", "data": "batches", "block_size": 16, "symmetric": True},
    "2 bits": {"bits": 2, "table_bits": 4},
    "3 bits": {"bits": 3},
    "6 bits in channels": {"bits": 6, "block_size": "channel"},
    "nf4": {"codebook": "nf4"},
    "everything packed": {"format": "packed"},
    "everything in integer kernels": {"format": "qdq", "integer_nodes": "all", "data": "batches"},
}
QUICK = ("rtn at 8 bits",)
"""What `make test` runs; `make test-all` runs every method."""

LEAST_SQNR = 20.0
"""dB at the outputs with 8-bit weights. Rounding a range of 8 standard deviations to 255 steps costs 38 dB; a path of a
dozen such layers, whose errors add up in power, loses 11 of them; the rest is what activations in int8 may cost."""

CASES = [
    pytest.param(family, method, marks=[] if method in QUICK else [pytest.mark.slow], id=f"{family}-{method}")
    for family in ZOO
    for method in METHODS
]


def converted(family: str, folder: Path, **wishes: Any) -> onnxq.api.ConvertReport:
    """The report of a conversion of `model.onnx`, with three batches to calibrate on where `data` is asked for."""
    proto = ZOO[family]()
    onnx.save(proto, folder / "model.onnx")
    if wishes.get("data") is not None:
        batches = folder / "batches"
        batches.mkdir(exist_ok=True)
        for seed in range(3):
            np.savez(batches / f"{seed}.npz", **feeds(proto, seed=seed))
        wishes["data"] = str(batches)
    return onnxq.convert(folder / "model.onnx", folder / "out.onnx", **wishes)


def large_weights(proto: onnx.ModelProto) -> int:
    """Matrices that are large enough to be worth quantizing."""
    return sum(len(tensor.dims) > 1 and np.prod(tensor.dims) >= MIN_ELEMENTS for tensor in proto.graph.initializer)


def surprises(report: onnxq.api.ConvertReport) -> list[str]:
    """Nodes that stock onnxruntime runs otherwise than predicted."""
    packed = [site.decision.site.node for site in report.sites if site.found != site.decision.kernel]
    return packed + [node.planned.node for node in report.integers if node.found != node.planned.kernel]


def worst_sqnr(report: onnxq.api.ConvertReport) -> float:
    assert report.verdict is not None
    return min(damage.sqnr_db for damage in report.verdict.outputs.values())


@pytest.mark.parametrize(("family", "method"), CASES)
def test_converts(family: str, method: str, tmp_path: Path) -> None:
    report = converted(family, tmp_path, **METHODS[method])
    assert report.passed
    assert report.verdict is not None
    assert report.verdict.outputs
    assert not [warning for warning in report.warnings if "normalis" in warning]
    unforeseen = surprises(report)
    assert all(any(f"'{name}'" in warning for warning in report.warnings) for name in unforeseen), "a silent slow path"
    if method != "everything in integer kernels":  # which forces codes where `fast` would not
        # A product of two constants: a sinusoid and its projection. onnxruntime computes it once and for all.
        assert not [name for name in unforeseen if ".relative" not in name]
    assert all(skip.reason for skip in report.skips)
    accounted = {site.decision.site.weight for site in report.sites} | {skip.weight for skip in report.skips}
    assert len(accounted) >= large_weights(onnx.load(tmp_path / "model.onnx"))
    if method == "rtn at 8 bits":
        assert worst_sqnr(report) > LEAST_SQNR


@pytest.mark.parametrize("family", ZOO)
def test_our_kernels_agree_with_stock(family: str, tmp_path: Path) -> None:
    converted(family, tmp_path, bits=8, format="packed")
    feed = feeds(ZOO[family](), seed=9)
    stock, ours = run(tmp_path / "out.onnx", feed), run(tmp_path / "out.onnx", feed, library=True)
    assert relative_error(ours[0], stock[0]) < 0.05  # both round activations to int8, block by block


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gpt2", "llama", "encoder_decoder"])
def test_fewer_bits_cost_more(family: str, tmp_path: Path) -> None:
    """The figures of the report follow what was done."""
    damage = [worst_sqnr(converted(family, tmp_path, bits=bits, format="packed", overwrite=True)) for bits in (2, 4, 8)]
    assert damage[0] < damage[1] - 3 < damage[2] - 6
