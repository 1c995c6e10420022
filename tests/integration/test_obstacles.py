"""What cannot be run or fed is found before any weight is quantized, or converted without a measurement and said so."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from graphs import graph, model, node, value
from onnx import TensorProto, helper

import onnxq
from onnxq import pipeline
from onnxq.errors import DataError, OnnxqError, SessionError
from onnxq.obstacles import size_on_disk

WEIGHT = (np.random.default_rng(0).standard_normal((64, 48)) / 8).astype(np.float32)
FC = node("MatMul", ["x", "w"], ["y"], name="/fc")
X, Y = value("x", ["M", 64]), value("y", ["M", 48])


def saved(folder: Path, proto: onnx.ModelProto | None = None) -> Path:
    path = folder / "model.onnx"
    onnx.save(proto if proto is not None else model(graph([FC], [X], [Y], {"w": WEIGHT})), path)
    return path


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"data": "nowhere"}, DataError, "no such file or folder"),
        ({"data": "wrong.npz"}, DataError, "input 'x' is missing"),
        ({"custom_op_libraries": ["broken.so"]}, SessionError, "cannot be registered"),
    ],
)
def test_bad_data_and_libraries_are_found_before_a_weight_is_quantized(tmp_path, monkeypatch, options, kind, message):
    def too_late(*arguments, **options):
        raise AssertionError("quantizing began")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pipeline, "_rewrite", too_late)
    np.savez("wrong.npz", z=np.zeros((1, 64), np.float32))
    Path("broken.so").write_bytes(b"no library")
    with pytest.raises(kind, match=message):
        onnxq.convert(saved(tmp_path), format="packed", **options)


def test_a_model_with_a_sequence_input_is_converted_and_not_measured(tmp_path):
    nodes = [FC, node("SequenceLength", ["items"], ["n"])]
    items = helper.make_tensor_sequence_value_info("items", TensorProto.FLOAT, None)
    proto = model(graph(nodes, [X, items], [Y, value("n", [], np.int64)], {"w": WEIGHT}))
    report = onnxq.convert(saved(tmp_path, proto), tmp_path / "out.onnx", bench=True)
    assert report.verdict is None
    assert any("input 'items' has type seq(tensor(float))" in warning for warning in report.warnings)
    assert [site.found for site in report.sites] == ["MatMulNBits"]


def test_a_sequence_output_is_named_and_not_compared(tmp_path):
    nodes = [FC, node("SequenceConstruct", ["y", "y"], ["s"])]
    outputs = [Y, helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None)]
    report = onnxq.convert(saved(tmp_path, model(graph(nodes, [X], outputs, {"w": WEIGHT}))), tmp_path / "out.onnx")
    assert list(report.verdict.outputs) == ["y"]
    assert "s" in report.verdict.unwatched


def test_strings_are_fed_and_invented(tmp_path):
    nodes = [FC, node("Identity", ["words"], ["same"])]
    words, same = (helper.make_tensor_value_info(name, TensorProto.STRING, ["S"]) for name in ("words", "same"))
    path = saved(tmp_path, model(graph(nodes, [X, words], [Y, same], {"w": WEIGHT})))
    np.savez(tmp_path / "one.npz", x=np.ones((1, 64), np.float32), words=np.array([["a", "bcd"]]))
    for index, data in enumerate((None, tmp_path / "one.npz")):
        report = onnxq.convert(path, tmp_path / f"out{index}.onnx", data=data)
        assert list(report.verdict.outputs) == ["y"]


def test_a_table_of_many_strings_is_kept(tmp_path):
    nodes = [FC, node("Gather", ["words", "i"], ["said"])]
    index, said = value("i", ["S"], np.int64), helper.make_tensor_value_info("said", TensorProto.STRING, ["S"])
    main = graph(nodes, [X, index], [Y, said], {"w": WEIGHT})
    main.initializer.append(helper.make_tensor("words", TensorProto.STRING, [3000], [b"word"] * 3000))
    onnxq.convert(saved(tmp_path, model(main)), tmp_path / "out.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "out.onnx", providers=["CPUExecutionProvider"])
    assert session.run(["said"], {"x": np.ones((1, 64), np.float32), "i": np.array([2999])})[0].tolist() == ["word"]


def test_small_external_tensors_come_along(tmp_path):
    add = node("Add", ["y", "b"], ["z"])
    weights = {"w": WEIGHT, "b": np.ones(48, np.float32)}
    proto = model(graph([FC, add], [X], [value("z", ["M", 48])], weights))
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "model.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="data", size_threshold=0)
    onnxq.convert(path, tmp_path / "out.onnx", format="qdq")
    (path.parent / "data").unlink()
    onnxruntime.InferenceSession(tmp_path / "out.onnx", providers=["CPUExecutionProvider"])


def test_an_error_names_the_output_by_its_final_name(tmp_path, monkeypatch):
    def refuse(reference, quantized, feeds, **options):
        raise SessionError(f"{quantized}: onnxruntime cannot load it: Load model from {quantized} failed")

    monkeypatch.setattr(pipeline, "verify_files", refuse)
    output = tmp_path / "out.onnx"
    with pytest.raises(OnnxqError) as caught:
        onnxq.convert(saved(tmp_path), output)
    assert str(caught.value) == f"{output}: onnxruntime cannot load it: Load model from {output} failed"
    assert not output.exists()


def test_what_max_ram_leaves_out_is_said_with_a_unit_that_fits(tmp_path):
    report = onnxq.convert(saved(tmp_path), tmp_path / "out.onnx", max_ram="1kB", report=tmp_path / "report.json")
    (warning,) = report.warnings
    assert warning.startswith("not measured: both models take 1")
    assert " kB and --max-ram allows 1.0 kB; run onnxq verify" in warning
    assert json.loads((tmp_path / "report.json").read_text())["passed"] is True


def test_nodes_out_of_order_convert(tmp_path):
    relu = node("Relu", ["y"], ["z"])
    main = graph([relu, FC], [X], [value("z", ["M", 48])], {"w": WEIGHT})
    path = saved(tmp_path, helper.make_model(main, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    report = onnxq.convert(path, tmp_path / "out.onnx", bits=8)
    onnx.checker.check_model(onnx.load(tmp_path / "out.onnx"), full_check=True)
    assert report.verdict.outputs["z"].sqnr_db > 30


def test_a_download_cache_of_links_converts_like_the_files(tmp_path):
    snapshot, blobs = tmp_path / "snapshot", tmp_path / "blobs"
    snapshot.mkdir(), blobs.mkdir()
    proto = model(graph([FC], [X], [Y], {"w": WEIGHT}))
    onnx.save(proto, snapshot / "model.onnx", save_as_external_data=True, location="data", size_threshold=0)
    for name in ("model.onnx", "data"):
        (snapshot / name).rename(blobs / f"{name}-hash")
        (snapshot / name).symlink_to(Path("../blobs") / f"{name}-hash")
    for format in ("packed", "qdq"):
        report = onnxq.convert(snapshot / "model.onnx", tmp_path / f"{format}.onnx", format=format)
        assert report.float_bytes > WEIGHT.nbytes
        onnxruntime.InferenceSession(tmp_path / f"{format}.onnx", providers=["CPUExecutionProvider"])


def test_external_data_of_a_branch_counts(tmp_path):
    def branch(name: str) -> onnx.GraphProto:
        return graph([node("MatMul", ["x", "w"], [name])], outputs=[value(name, ["M", 48])], weights={"w": WEIGHT})

    choose = node("If", ["c"], ["y"], then_branch=branch("t"), else_branch=branch("e"))
    proto = model(graph([choose], [value("c", [], np.bool_), X], [Y]))
    onnx.save(proto, tmp_path / "model.onnx")
    whole = size_on_disk(tmp_path / "model.onnx")
    onnx.save(proto, tmp_path / "model.onnx", save_as_external_data=True, location="data", size_threshold=0)
    assert (tmp_path / "data").stat().st_size >= 2 * WEIGHT.nbytes
    assert abs(size_on_disk(tmp_path / "model.onnx") - whole) < 20_000
