"""`onnxq convert` on tiny models in every float type, width and block: the file is valid ONNX, and stock onnxruntime,
onnxruntime with our library and the reference evaluator compute the same with it."""

from itertools import cycle, product
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from command_line import onnxq, onnxq_process, report_of
from graphs import ONNX_BITS, graph, model, node, relative_error, run, run_reference, value
from tiny_models import TINY_MODELS, feeds_of

from onnxq.scheme import BLOCK_SIZES
from onnxq.upcast import float32_copy

DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}

INT8_ACTIVATIONS = 0.06
"""Both int8 paths round activations to 1/127 of each block's largest: below 1% of L2 per layer for the normal numbers
of these models. Eight layers in a row, each amplifying at most a little, stay below this; a wrong layout gives 1.4."""

FUNCTION_BODY = {"float32": 1e-5, "float16": 2e-2}
"""The same float sums in another order; float16 bodies round every weight, product and sum to 2^-11 besides."""

blocks = cycle(BLOCK_SIZES)
CASES = [
    (name, dtype, bits, symmetry, next(blocks))
    for name, dtype, bits, symmetry in product(TINY_MODELS, DTYPES, ONNX_BITS, ("--symmetric", "--asymmetric"))
]


def saved(folder: Path, name: str, dtype: str) -> tuple[Path, onnx.ModelProto]:
    proto = TINY_MODELS[name](DTYPES[dtype])
    onnx.save(proto, folder / "model.onnx")
    return folder / "model.onnx", proto


@pytest.mark.parametrize(("name", "dtype", "bits", "symmetry", "block_size"), CASES)
def test_every_runtime_computes_the_same(tmp_path, name, dtype, bits, symmetry, block_size):
    path, proto = saved(tmp_path, name, dtype)
    options = ["--bits", bits, "--table-bits", bits, "--block-size", block_size, "--format", "packed", symmetry]
    done = onnxq("convert", path, *map(str, options), "--report", tmp_path / "report.json")
    assert done.code == 0, done.err
    output = tmp_path / "model.onnxq.onnx"
    onnx.checker.check_model(output, full_check=True)
    report = report_of(tmp_path / "report.json")
    assert report["sites"], "nothing was quantized"
    assert {item["decision"]["scheme"]["bits"] for item in report["sites"]} <= {bits, 2 * bits, 8}
    if dtype == "bfloat16":  # onnxruntime's CPU has no bfloat16: the function bodies are run in float32
        (tmp_path / "copy").mkdir()
        output = float32_copy(output, tmp_path / "copy")
    feeds = feeds_of(proto)
    (body,) = run(output, feeds, optimise=False)
    (stock,) = run(output, feeds)
    (ours,) = run(output, feeds, library=True)
    (exact,) = run(output, feeds, library=True, config={"onnxq.compute": "float"})
    (reference,) = run_reference(output, feeds)
    assert np.isfinite(body.astype(np.float64)).all()
    assert relative_error(stock, body) < INT8_ACTIVATIONS
    assert relative_error(ours, body) < INT8_ACTIVATIONS
    assert relative_error(exact, body) < FUNCTION_BODY.get(dtype, 1e-5)
    assert relative_error(reference, body) < FUNCTION_BODY.get(dtype, 1e-5)


@pytest.mark.parametrize(("bits", "least_db"), [(8, 25), (4, 8)])
@pytest.mark.parametrize("name", TINY_MODELS)
def test_the_result_is_the_float_model_within_its_bits(tmp_path, name, bits, least_db):
    """A weight has about 6 dB a bit; eight layers with int8 activations cost up to 20 dB of that."""
    path, proto = saved(tmp_path, name, "float32")
    options = ["--bits", bits, "--table-bits", bits, "--format", "packed", "--asymmetric"]
    assert onnxq("convert", path, *map(str, options)).code == 0
    feeds = feeds_of(proto)
    (expected,), (got,) = run(proto, feeds), run(tmp_path / "model.onnxq.onnx", feeds)
    error = relative_error(got, expected)
    assert error > 1e-6, "nothing was quantized"
    assert -20 * np.log10(error) > least_db


def test_stock_onnxruntime_runs_its_own_packed_kernel(tmp_path):
    """Read from the graph that onnxruntime really optimised; every block size, K ragged."""
    path, _ = saved(tmp_path, "transformer", "float32")
    for block_size in BLOCK_SIZES:
        options = ["--block-size", str(block_size), "--overwrite", "--report", tmp_path / "report.json"]
        assert onnxq("convert", path, *options).code == 0
        found = {
            item["decision"]["site"]["node"]: item["found"] for item in report_of(tmp_path / "report.json")["sites"]
        }
        assert {found[f"/attention/{part}"] for part in "qkvo"} == {"MatMulNBits"}
        assert found["/mlp/down"] == found["/head"] == "MatMulNBits"


def test_a_relu_behind_a_matmul_does_not_cost_the_packed_kernel(tmp_path):
    path, _ = saved(tmp_path, "mlp", "float32")
    assert onnxq("convert", path, "--report", tmp_path / "report.json").code == 0
    assert {item["found"] for item in report_of(tmp_path / "report.json")["sites"]} == {"MatMulNBits"}


@pytest.mark.parametrize("wishes", [(), ("--bits", "8"), ("--bits", "8", "--asymmetric")], ids=" ".join)
def test_rows_of_a_table_that_go_straight_into_a_matmul_run_packed(tmp_path, wishes):
    rng = np.random.default_rng(0)
    table, weight = (rng.standard_normal((k, n)).astype(np.float32) for k, n in ((200, 64), (64, 48)))
    nodes = [node("Gather", ["E", "ids"], ["H"], name="/embed"), node("MatMul", ["H", "W"], ["Y"], name="/fc")]
    inputs, outputs = [value("ids", ["M"], np.int64)], [value("Y", ["M", 48])]
    onnx.save(model(graph(nodes, inputs, outputs, {"E": table, "W": weight})), tmp_path / "model.onnx")
    done = onnxq("convert", tmp_path / "model.onnx", *wishes, "--report", tmp_path / "report.json")
    assert done.code == 0, done.err
    found = [item["found"] for item in report_of(tmp_path / "report.json")["sites"]]
    assert found == ["DequantizeLinear", "MatMulNBits"]


def test_a_table_and_its_head_are_in_the_file_once(tmp_path):
    path, _ = saved(tmp_path, "transformer", "float32")
    assert onnxq("convert", path).code == 0
    names = [item.name for item in onnx.load(tmp_path / "model.onnxq.onnx").graph.initializer]
    assert sorted(name for name in names if name.startswith("table")) == ["table.codes", "table.scales"]


def test_a_weight_of_two_matmuls_above_one_megabyte_is_stored_once_and_fuses_twice(tmp_path):
    k = 1536  # 4-bit codes of 1.2 MB: an external data file
    weight = (np.random.default_rng(0).standard_normal((k, k)) / k**0.5).astype(np.float32)
    nodes = [
        node("MatMul", ["X", "W"], ["A"], name="/one"),
        node("Tanh", ["A"], ["T"]),
        node("MatMul", ["T", "W"], ["Y"], name="/two"),
    ]
    proto = model(graph(nodes, [value("X", ["M", k])], [value("Y", ["M", k])], {"W": weight}))
    onnx.save(proto, tmp_path / "model.onnx")
    assert onnxq("convert", tmp_path / "model.onnx", "--report", tmp_path / "report.json").code == 0
    report = report_of(tmp_path / "report.json")
    assert [item["found"] for item in report["sites"]] == ["MatMulNBits"] * 2
    codes, scales, zero_points = k * k // 2, 2 * k * k // 32, k * k // 64
    (data,) = tmp_path.glob("*.data")
    assert codes + scales + zero_points <= data.stat().st_size < codes + scales + zero_points + 3 * 4096


def test_two_runs_write_the_same_bytes(tmp_path):
    path, _ = saved(tmp_path, "transformer", "float32")
    for name in ("a", "b"):
        assert onnxq("convert", path, "-o", tmp_path / f"{name}.onnx", "--method", "mse").code == 0
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_a_converted_model_needs_no_onnxq_on_the_path(tmp_path):
    """The command as a process of its own, on a path relative to its working directory."""
    saved(tmp_path, "mlp", "float32")
    done = onnxq_process("convert", "model.onnx", cwd=tmp_path)
    assert done.code == 0, done.err
    assert (tmp_path / "model.onnxq.onnx").is_file()
    assert "wrote" in done.out


def test_an_output_that_becomes_infinite_exits_with_3(tmp_path):
    """Every float16 output at 99% of the type's range: rounding to 2 bits pushes some of the 32 over it."""
    weight = np.abs(np.random.default_rng(0).standard_normal((64, 32)))
    weight = (weight / weight.sum(axis=0)).astype(np.float16)
    nodes = [
        node("MatMul", ["X", "W"], ["P"], name="/fc"),
        node("Mul", ["P", "large"], ["Y"], name="/scale"),
    ]
    proto = model(
        graph(
            nodes,
            [value("X", [1, 64], np.float16)],
            [value("Y", [1, 32], np.float16)],
            {"W": weight, "large": np.array(64900, np.float16)},
        )
    )
    feed = {"X": np.ones((1, 64), np.float16)}
    assert np.isfinite(run(proto, feed)[0]).all()
    onnx.save(proto, tmp_path / "model.onnx")
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "batch.npz", **feed)
    done = onnxq("convert", tmp_path / "model.onnx", "--bits", "2", "--data", tmp_path / "data")
    assert done.code == 3, done.out + done.err
    assert "NaN or infinite" in done.out
    assert (tmp_path / "model.onnxq.onnx").is_file(), "a missed target is reported, the file is the user's to judge"
    done = onnxq("verify", tmp_path / "model.onnx", tmp_path / "model.onnxq.onnx", "--data", tmp_path / "data")
    assert done.code == 3
