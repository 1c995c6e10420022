"""Verification: which values are compared, and what is said when a comparison cannot be made."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import graph, model, node, tensor, value
from stages import quantize

from onnxq.errors import SessionError
from onnxq.session import SessionOptions
from onnxq.verification import verify_files, watched_values

K = 40
RNG = np.random.default_rng(0)
FEEDS = [{"X": RNG.standard_normal((6, K)).astype(np.float32)} for _ in range(2)]


def gemms(*, output: str = "logits") -> onnx.ModelProto:
    return model(
        graph(
            [
                node("Gemm", ["X", "W1", "b1"], ["H"], name="/fc1"),
                node("Relu", ["H"], ["R"]),
                node("MatMul", ["R", "W2"], [output], name="/fc2"),
            ],
            [value("X", ["M", K])],
            [value(output, ["M", K])],
            {
                "W1": (RNG.standard_normal((K, K)) / 6).astype(np.float32),
                "W2": (RNG.standard_normal((K, K)) / 6).astype(np.float32),
                "b1": RNG.standard_normal(K).astype(np.float32),
            },
        )
    )


def saved(path: Path, proto: onnx.ModelProto) -> Path:
    onnx.save(proto, path)
    return path


@pytest.fixture
def pair(tmp_path, registry) -> tuple[Path, Path]:
    """A float model and its 8-bit twin."""
    float_model = gemms()
    quantized = onnx.load_model_from_string(onnx_bytes(quantize(float_model, registry, bits=8)))
    return saved(tmp_path / "float.onnx", float_model), saved(tmp_path / "quantized.onnx", quantized)


def onnx_bytes(rewritten) -> bytes:
    import onnx_ir as ir

    return ir.to_proto(rewritten.model.ir).SerializeToString()


def verify(reference: Path, quantized: Path, feeds=FEEDS):
    return verify_files(reference, quantized, feeds, data="test feeds", options=SessionOptions(threads=1))


def test_a_layer_is_compared_where_the_float_model_has_the_value(pair):
    """The Gemm's product has no name in the float model; the sum behind it has."""
    watched, unwatched = watched_values(*pair)
    assert watched == {"/fc1": "H", "/fc2": "logits"}
    assert unwatched == {}


def test_damage_at_layers_and_outputs(pair):
    verdict = verify(*pair)
    assert (verdict.batches, verdict.data) == (2, "test feeds")
    assert list(verdict.outputs) == ["logits"]
    assert list(verdict.layers) == ["/fc1", "/fc2"]
    assert verdict.finite
    # 8-bit weights and activations: each about -42 dB; 30 dB is far off a wrong layout (below 0 dB) and off exact
    assert all(30 < damage.sqnr_db < 60 for damage in [*verdict.layers.values(), *verdict.outputs.values()])
    assert verdict.outputs["logits"].top1 is not None, "an output called logits is compared as one"


def test_teeth_scales_off_by_five_percent_show(pair):
    reference, quantized = pair
    proto = onnx.load(quantized)
    for item in proto.graph.initializer:
        if item.name == "W2.scales":
            item.CopyFrom(tensor(item.name, onnx.numpy_helper.to_array(item) * np.float16(1.05)))
    good, bad = verify(*pair), verify(reference, saved(quantized, proto))
    assert bad.layers["/fc1"] == good.layers["/fc1"]
    assert bad.layers["/fc2"].sqnr_db == pytest.approx(-20 * np.log10(0.05), abs=1)


def test_a_model_against_itself_is_exact(pair):
    verdict = verify(pair[0], pair[0])
    assert verdict.outputs["logits"].sqnr_db == np.inf
    assert verdict.layers == {}


@pytest.mark.parametrize("spoil", [np.nan, np.inf])
def test_an_output_that_is_no_longer_finite_fails(pair, spoil):
    reference, quantized = pair
    proto = onnx.load(quantized)
    for item in proto.graph.initializer:
        if item.name == "W2.scales":
            item.CopyFrom(tensor(item.name, onnx.numpy_helper.to_array(item) * np.float16(spoil)))
    assert not verify(reference, saved(quantized, proto)).finite


def test_a_missing_output_is_an_error(tmp_path, pair):
    other = saved(tmp_path / "other.onnx", gemms(output="scores"))
    with pytest.raises(SessionError, match="has no output 'logits'"):
        verify(pair[0], other)


def test_an_output_of_another_shape_is_an_error(tmp_path, pair):
    proto = gemms()
    proto.graph.node[2].output[0] = "wide"
    proto.graph.node.append(node("Concat", ["wide", "wide"], ["logits"], axis=1))
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 2 * K
    with pytest.raises(SessionError, match=r"'logits' has shape .*80.*expected .*40"):
        verify(pair[0], saved(tmp_path / "wide.onnx", proto))


def test_a_node_that_cannot_be_compared_says_why(tmp_path, pair):
    proto = gemms()
    for item in proto.graph.node:
        for names in (item.input, item.output):
            names[:] = [{"H": "other_H", "R": "other_R", "logits": "Y"}.get(name, name) for name in names]
    proto.graph.output[0].name = "Y"
    watched, unwatched = watched_values(saved(tmp_path / "other.onnx", proto), pair[1])
    assert watched == {}
    assert set(unwatched) == {"/fc1", "/fc2"}
    assert "no value to compare" in unwatched["/fc1"]


def test_a_feed_that_does_not_fit_is_a_session_error(pair):
    with pytest.raises(SessionError, match=r"float\.onnx: running it fails"):
        verify(*pair, feeds=[{"X": np.zeros((2, K + 1), np.float32)}])
