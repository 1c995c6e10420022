"""Load: everything that can be wrong with a file is one ModelError line, found before any work."""

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import graph, model, node, value
from onnx import helper

from onnxq.errors import ModelError
from onnxq.model import all_initializers, load, weight_bytes

K, N = 32, 40
WEIGHT = np.random.default_rng(0).standard_normal((K, N)).astype(np.float32)


def matmul_model() -> onnx.ModelProto:
    return model(
        graph(
            [node("MatMul", ["X", "W"], ["Y"], name="fc")],
            [value("X", ["M", K])],
            [value("Y", ["M", N])],
            {"W": WEIGHT},
        )
    )


def saved(folder: Path, *, location: str | None = None, proto: onnx.ModelProto | None = None) -> Path:
    """A model file in `folder`, its weights in `location` when given."""
    path = folder / "model.onnx"
    proto = proto if proto is not None else matmul_model()
    if location is None:
        onnx.save(proto, path)
    else:
        onnx.save(proto, path, save_as_external_data=True, location=location, size_threshold=0)
    return path


def with_location(path: Path, **entries: str) -> Path:
    """Rewrite the external data references of a saved model."""
    proto = onnx.load(path, load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            entry.value = entries.get(entry.key, entry.value)
    path.write_bytes(proto.SerializeToString())
    return path


def assert_refused(path: Path, message: str, **options) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        load(path, **options)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    assert ";" in text, "no next step"


def test_weights_stay_on_disk_until_somebody_reads_one(tmp_path):
    loaded = load(saved(tmp_path, location="weights.bin"))
    (item,) = all_initializers(loaded.ir)
    assert type(item.const_value).__name__ == "ExternalTensor"
    assert (item.const_value.numpy() == WEIGHT).all()
    assert weight_bytes(loaded.ir) == WEIGHT.nbytes


def test_the_fingerprint_is_that_of_the_file(tmp_path):
    path = saved(tmp_path)
    first = load(path).fingerprint
    assert load(path).fingerprint == first
    proto = matmul_model()
    proto.doc_string = "changed"
    assert load(saved(tmp_path, proto=proto)).fingerprint != first


def test_a_path_relative_to_the_working_directory(tmp_path, monkeypatch):
    saved(tmp_path, location="weights.bin")
    monkeypatch.chdir(tmp_path)
    (item,) = all_initializers(load("model.onnx").ir)
    monkeypatch.chdir("/")
    assert (item.const_value.numpy() == WEIGHT).all()


@pytest.mark.parametrize(
    "content",
    [b"", b"\x00" * 100, b"<html>404 Not Found</html>", b"PK\x03\x04 not a model", os.urandom(16) * 64],
    ids=["empty", "zeros", "html", "zip", "noise"],
)
def test_not_an_onnx_file(tmp_path, content):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    assert_refused(path, "model.onnx: not an ONNX (file|model)")


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.99])
def test_a_truncated_file(tmp_path, share):
    path = saved(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert_refused(path, "model.onnx: ")


def test_truncated_between_graph_and_opset(tmp_path):
    """It still parses, without the field that comes last."""
    proto = matmul_model()
    del proto.opset_import[:]
    assert_refused(saved(tmp_path, proto=proto), "opset")


def test_a_weight_with_fewer_bytes_than_its_shape_needs(tmp_path):
    proto = matmul_model()
    proto.graph.initializer[0].raw_data = proto.graph.initializer[0].raw_data[:-4]
    assert_refused(saved(tmp_path, proto=proto), f"'W' .*{WEIGHT.nbytes - 4} bytes")


def test_a_weight_with_fewer_numbers_than_its_shape_needs(tmp_path):
    proto = matmul_model()
    proto.graph.initializer[0].CopyFrom(helper.make_tensor("W", onnx.TensorProto.FLOAT, [K, N], WEIGHT.ravel()))
    load(saved(tmp_path, proto=proto))
    del proto.graph.initializer[0].float_data[10:]
    assert_refused(saved(tmp_path, proto=proto), f"'W' .*needs {K * N} numbers and has 10 numbers")


def test_a_constant_with_fewer_bytes_than_its_shape_needs(tmp_path):
    proto = matmul_model()
    short = onnx.numpy_helper.from_array(WEIGHT, "V")
    short.raw_data = short.raw_data[:100]
    proto.graph.node.append(node("Constant", [], ["unused"], value=short))
    assert_refused(saved(tmp_path, proto=proto), f"'V' .*needs {WEIGHT.nbytes} bytes and has 100 bytes")


@pytest.mark.parametrize(
    ("kind", "numbers"),
    [
        (onnx.TensorProto.INT4, [1, -2, 3]),
        (onnx.TensorProto.FLOAT16, [1, 2, 3]),
        (onnx.TensorProto.BOOL, [1, 0, 1]),
        (onnx.TensorProto.COMPLEX64, [1j, 2, 3]),
        (onnx.TensorProto.STRING, [b"a", b"", b"c"]),
    ],
)
def test_numbers_of_every_type_are_counted_as_onnx_stores_them(tmp_path, kind, numbers):
    proto = matmul_model()
    proto.graph.initializer.append(helper.make_tensor("V", kind, [3], numbers))
    load(saved(tmp_path, proto=proto))
    proto.graph.initializer[1].dims[0] = 5
    assert_refused(saved(tmp_path, proto=proto), "'V' of shape .5. needs")


def test_nodes_out_of_order_load(tmp_path):
    proto = matmul_model()
    proto.graph.node.insert(0, node("Relu", ["Y"], ["Z"]))
    assert [item.op_type for item in load(saved(tmp_path, proto=proto)).ir.clone().graph] == ["MatMul", "Relu"]


def test_a_missing_file(tmp_path):
    assert_refused(tmp_path / "nowhere.onnx", "no such file")


def test_a_folder(tmp_path):
    assert_refused(tmp_path, "is a folder")


def test_missing_external_data(tmp_path):
    path = saved(tmp_path, location="weights.bin")
    (tmp_path / "weights.bin").unlink()
    assert_refused(path, "external data file 'weights.bin' is missing")


def test_short_external_data(tmp_path):
    path = saved(tmp_path, location="weights.bin")
    data = tmp_path / "weights.bin"
    data.write_bytes(data.read_bytes()[:-1])
    assert_refused(path, rf"'W' needs {WEIGHT.nbytes} bytes at offset 0 .*has {WEIGHT.nbytes - 1} bytes")


@pytest.mark.parametrize(("key", "number"), [("offset", "4"), ("length", "4"), ("length", "99999999")])
def test_external_data_that_does_not_cover_the_tensor(tmp_path, key, number):
    path = with_location(saved(tmp_path, location="weights.bin"), **{key: number})
    assert_refused(path, "external data of 'W'")


@pytest.mark.parametrize("offset", ["-4", "four"])
def test_external_data_at_an_impossible_offset(tmp_path, offset):
    path = with_location(saved(tmp_path, location="weights.bin"), offset=offset)
    assert_refused(path, "model.onnx: ")


@pytest.mark.parametrize("location", ["../weights.bin", "inside/../../weights.bin", "{folder}/weights.bin"])
def test_external_data_outside_the_models_folder(tmp_path, location):
    inner = tmp_path / "inner"
    inner.mkdir()
    path = saved(inner, location="weights.bin")
    (inner / "weights.bin").rename(tmp_path / "weights.bin")
    assert_refused(with_location(path, location=location.format(folder=tmp_path)), "outside the model's folder")


def test_external_data_behind_a_symlink_out_of_the_folder(tmp_path):
    inner = tmp_path / "inner"
    inner.mkdir()
    path = saved(inner, location="weights.bin")
    (inner / "weights.bin").rename(tmp_path / "weights.bin")
    (inner / "weights.bin").symlink_to(tmp_path / "weights.bin")
    assert_refused(path, "outside the model's folder")


def linked(folder: Path, *, blobs: str) -> Path:
    """A download cache: the model is a link into `blobs`, its data a link to a file in the folder `store`."""
    snapshot = folder / "snapshot"
    for place in (snapshot, folder / blobs, folder / "store"):
        place.mkdir(exist_ok=True)
    path = saved(snapshot, location="weights.bin")
    for name, place in (("model.onnx", blobs), ("weights.bin", "store")):
        (snapshot / name).rename(folder / place / f"hash of {name}")
        (snapshot / name).symlink_to(Path("..") / place / f"hash of {name}")
    return path


def test_a_download_cache_of_links_loads(tmp_path):
    (item,) = all_initializers(load(linked(tmp_path, blobs="store")).ir)
    assert (item.const_value.numpy() == WEIGHT).all()


def test_a_linked_model_may_not_refer_to_any_other_folder(tmp_path):
    assert_refused(linked(tmp_path, blobs="elsewhere"), "outside the model's folder")


def test_external_data_in_a_folder_below_is_fine(tmp_path):
    (tmp_path / "data").mkdir()
    path = saved(tmp_path, location="data/weights.bin")
    (item,) = all_initializers(load(path).ir)
    assert (item.const_value.numpy() == WEIGHT).all()


def custom(name: str = "custom") -> onnx.ModelProto:
    return model(
        graph(
            [node("Secret", ["X"], ["Y"], domain="acme", name=name)],
            [value("X", ["M", K])],
            [value("Y", ["M", K])],
        ),
        domains=["acme"],
    )


def test_an_operator_of_an_unknown_domain_needs_its_library(tmp_path):
    assert_refused(saved(tmp_path, proto=custom()), r"'custom' is the custom operator acme::Secret.*--custom-op-lib")


def test_with_a_library_the_session_decides(tmp_path):
    library = tmp_path / "libacme.so"
    library.write_bytes(b"")
    loaded = load(saved(tmp_path, proto=custom()), custom_op_libraries=[library])
    assert loaded.custom_op_libraries == (library,)


def test_a_missing_library(tmp_path):
    assert_refused(saved(tmp_path), "libacme.so: no such file", custom_op_libraries=["libacme.so"])


def test_an_unknown_operator_inside_a_function_is_found_too(tmp_path):
    body = [node("Secret", ["x"], ["y"], domain="acme", name="inner")]
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("acme", 1)]
    function = helper.make_function("exporter", "Block", ["x"], ["y"], body, imports)
    main = graph(
        [node("Block", ["X"], ["Y"], domain="exporter", name="call")], [value("X", ["M", K])], [value("Y", ["M", K])]
    )
    proto = helper.make_model(
        main,
        opset_imports=[*imports, helper.make_opsetid("exporter", 1)],
        functions=[function],
        ir_version=10,
    )
    assert_refused(saved(tmp_path, proto=proto), "acme::Secret")


def test_an_operator_defined_by_a_function_of_the_model_is_known(tmp_path):
    imports = [helper.make_opsetid("", 21)]
    function = helper.make_function("acme", "Secret", ["x"], ["y"], [node("Relu", ["x"], ["y"])], imports)
    proto = custom()
    proto.functions.append(function)
    load(saved(tmp_path, proto=proto))
