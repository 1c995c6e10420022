"""Rewrite: carries out a plan; a plugin's nonsense and a broken weight stop it with a named error."""

from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graphs import graph, in_memory, model, node, op_types, relative_error, run, value
from onnxq_plugins.packed import Packed
from onnxq_plugins.rtn import RoundToNearest
from stages import keep, plan, quantize

from onnxq.affine import QuantizedWeight, dequantize
from onnxq.errors import PlanError, PluginError
from onnxq.normalise import normalise
from onnxq.plugin.contracts import Replacement
from onnxq.plugin.registry import Plugin, Registry
from onnxq.rewrite import rewrite
from onnxq.scheme import Scheme

K, N = 64, 32
RNG = np.random.default_rng(0)


def matmul_model(weight: np.ndarray) -> onnx.ModelProto:
    return model(
        graph(
            [node("MatMul", ["X", "W"], ["Y"], name="/fc")],
            [value("X", ["M", K])],
            [value("Y", ["M", N])],
            {"W": weight.astype(np.float32)},
        )
    )


def with_quantizer(registry: Registry, quantize_weight) -> Registry:
    """The registry with `bad`, whose answer is `quantize_weight(right answer)`."""

    class Bad:
        name = "bad"

        def quantize(self, weight, scheme, evidence):
            return quantize_weight(RoundToNearest().quantize(weight, scheme, evidence))

    bad = Plugin("bad", "weight quantizer", Bad(), "bad-dist", "6.6")
    return replace(registry, weight_quantizers={**registry.weight_quantizers, "bad": bad})


def fail(_):
    raise RuntimeError("out of cheese")


NONSENSE = {
    "raises": (fail, "raised RuntimeError: out of cheese"),
    "None": (lambda good: None, "a NoneType instead of a QuantizedWeight"),
    "another scheme": (lambda good: replace(good, scheme=Scheme(8, True, block_size=32)), "asked for uint4 block 32"),
    "codes of another shape": (lambda good: replace(good, codes=good.codes[:-1]), "codes of shape"),
    "codes too large": (lambda good: replace(good, codes=good.codes + np.uint8(9)), "codes outside 0..15"),
    "codes that are floats": (lambda good: replace(good, codes=good.codes + np.float32(0.5)), "codes of type float32"),
    "codes in a list": (lambda good: replace(good, codes=good.codes.tolist()), "codes"),
    "scales of another shape": (lambda good: replace(good, scales=good.scales.T), "scales of shape"),
    "a NaN scale": (lambda good: replace(good, scales=good.scales * np.nan), "not positive and finite"),
    "a zero scale": (lambda good: replace(good, scales=good.scales * 0), "not positive and finite"),
    "a negative scale": (lambda good: replace(good, scales=-good.scales), "not positive and finite"),
    "a scale that float16 lacks": (
        lambda good: replace(good, scales=good.scales * np.float32(1.0001)),
        "scales that float16 cannot hold",
    ),
    "no zero points": (lambda good: replace(good, zero_points=None), "no zero points"),
    "zero points of another shape": (lambda good: replace(good, zero_points=good.zero_points.T), "zero points of"),
    "zero points too large": (lambda good: replace(good, zero_points=good.zero_points + np.uint8(16)), "outside 0..15"),
}


@pytest.mark.parametrize(("answer", "message"), NONSENSE.values(), ids=NONSENSE)
def test_a_quantizers_nonsense_names_plugin_distribution_and_site(registry, answer, message):
    proto = matmul_model(RNG.standard_normal((K, N)))
    with pytest.raises(PluginError, match=message) as caught:
        quantize(proto, with_quantizer(registry, answer), method="bad")
    assert "'bad' (bad-dist 6.6) at /fc" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_symmetric_with_zero_points_is_nonsense_too(registry):
    add_zero_points = with_quantizer(registry, lambda good: replace(good, zero_points=np.zeros((2, N), np.uint8)))
    with pytest.raises(PluginError, match="zero points for a symmetric scheme"):
        quantize(matmul_model(RNG.standard_normal((K, N))), add_zero_points, method="bad", symmetric=True)


class NoNodes(Packed):
    """A format that puts nothing in the place of a node."""

    name = "bad"

    def place(self, placement):
        return Replacement([])


class NoAnswer(Packed):
    name = "bad"

    def place(self, placement):
        return None


class NoTensors(Packed):
    name = "bad"

    def store(self, site, weight):
        return None


@pytest.mark.parametrize("form", [NoNodes, NoAnswer, NoTensors])
def test_a_formats_nonsense_names_plugin_distribution_and_site(registry, form):
    bad = Plugin("bad", "format", form(), "bad-dist", "6.6")
    registry = replace(registry, formats={**registry.formats, "bad": bad})
    with pytest.raises(PluginError, match=r"format plugin 'bad' \(bad-dist 6\.6\) at /fc"):
        quantize(matmul_model(RNG.standard_normal((K, N))), registry, format="bad")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_not_finite_is_named_with_the_way_round_it(registry, bad):
    weight = RNG.standard_normal((K, N))
    weight[3, 5] = weight[60, 1] = bad
    with pytest.raises(PlanError, match=r"MatMul '/fc': weight 'W' holds 2 values .* --skip '/fc'"):
        quantize(matmul_model(weight), registry)
    assert op_types(quantize(matmul_model(weight), registry, skip=("/fc",)).model.ir) == ["MatMul"]


def test_the_way_round_a_broken_weight_is_a_pattern_that_finds_it(registry):
    proto = matmul_model(np.full((K, N), np.nan))
    proto.graph.node[0].name = "/a(b)[0]/MatMul"
    with pytest.raises(PlanError) as caught:
        quantize(proto, registry)
    pattern = str(caught.value).rpartition("--skip ")[2].strip("'")
    assert op_types(quantize(proto, registry, skip=(pattern,)).model.ir) == ["MatMul"]


def test_the_reported_sqnr_is_that_of_the_dequantized_weight(registry):
    weight = RNG.standard_normal((K, N)).astype(np.float32)
    reported = quantize(matmul_model(weight), registry, bits=8, symmetric=True)
    back = dequantize(RoundToNearest().quantize(weight, Scheme(8, True, block_size=32), None)).astype(np.float64)
    expected = 10 * np.log10((weight.astype(np.float64) ** 2).sum() / ((weight - back) ** 2).sum())
    assert reported.weight_sqnr["/fc"] == pytest.approx(expected, abs=0.001)
    assert reported.stored_bytes["/fc"] == K * N + 2 * (K // 32) * N


@pytest.mark.parametrize(
    "weight", [np.zeros((K, N)), np.tile(np.arange(K)[:, None] % 32 * 4.0 - 128, N)], ids=["0", "codes"]
)
def test_a_weight_without_error_has_infinite_sqnr(registry, weight):
    """Every block holds the integers -128, -124..-4: scale 1, exact."""
    assert quantize(matmul_model(weight), registry, bits=8, symmetric=True).weight_sqnr["/fc"] == np.inf


@pytest.mark.parametrize("wishes", [{}, {"bits": 3}, {"codebook": "nf4"}, {"method": "mse"}], ids=str)
@pytest.mark.parametrize("factor", [1e-9, 1e7, 1e30])
def test_scales_that_float16_cannot_hold_are_stored_as_float32_and_named(registry, factor, wishes):
    weight = RNG.standard_normal((K, N)).astype(np.float32)
    usual = quantize(matmul_model(weight), registry, **wishes)
    extreme = quantize(matmul_model(weight * np.float32(factor)), registry, **wishes)
    scales = {name: item.const_value for name, item in extreme.model.ir.graph.initializers.items()}["W.scales"]
    assert scales.dtype == ir.DataType.FLOAT
    (warning,) = extreme.warnings
    assert "'/fc': its scales" in warning
    assert extreme.decisions[0].scheme.scale_type == "FLOAT"
    assert (usual.warnings, usual.decisions[0].scheme.scale_type) == ((), "FLOAT16")
    assert extreme.weight_sqnr["/fc"] == pytest.approx(usual.weight_sqnr["/fc"], abs=0.1)


def test_a_weight_that_quantization_destroys_is_named(registry):
    swapped = with_quantizer(registry, lambda good: replace(good, codes=good.codes[::-1]))
    weight = RNG.standard_normal((K, N))
    for bits in (3, 8):
        (warning,) = quantize(matmul_model(weight), swapped, method="bad", bits=bits).warnings
        assert "'/fc': quantization destroys its weight (-" in warning
    assert quantize(matmul_model(weight), swapped, method="bad", bits=2).warnings == ()


def test_the_normalised_model_is_left_untouched(registry):
    proto = matmul_model(RNG.standard_normal((K, N)))
    normalised = normalise(in_memory(proto), opset=21)
    before = ir.to_proto(normalised.ir).SerializeToString()
    rewrite(normalised, plan(proto, registry), registry, sink=keep)
    assert ir.to_proto(normalised.ir).SerializeToString() == before


def shared_model(*readers: onnx.NodeProto) -> onnx.ModelProto:
    """A square weight W [K, K] with several readers; outputs A and B."""
    return model(
        graph(
            [*readers],
            [value("X", ["M", K]), value("ids", ["M"], np.int64)],
            [value("A", ["M", K]), value("B", ["M", K])],
            {"W": (RNG.standard_normal((K, K)) / 8).astype(np.float32)},
        )
    )


TWO_MATMULS = (node("MatMul", ["X", "W"], ["A"], name="one"), node("MatMul", ["A", "W"], ["B"], name="two"))
TABLE = node("Gather", ["W", "ids"], ["A"], name="embed")
HEAD = (
    node("Transpose", ["W"], ["T"], perm=[1, 0], name="t"),
    node("MatMul", ["A", "T"], ["B"], name="head"),
)


def check_against_float(proto: onnx.ModelProto, quantized: ir.Model) -> None:
    """8-bit weights, float activations: each product is within 2% (a wrong layout is off by about 140%)."""
    feeds = {"X": RNG.standard_normal((5, K)).astype(np.float32), "ids": np.array([0, 3, 63, 9, 9])}
    used = {item.name for item in proto.graph.input}
    feeds = {name: array for name, array in feeds.items() if name in used}
    for expected, got in zip(run(proto, feeds), run(quantized, feeds, optimise=False), strict=True):
        assert relative_error(got, expected) < 0.02


def test_a_weight_shared_by_two_matmuls_is_stored_once_under_two_names(registry):
    proto = shared_model(*TWO_MATMULS)
    stored = []

    def sink(tensor, name):
        stored.append(name)
        return keep(tensor, name)

    normalised = normalise(in_memory(proto), opset=21)
    result = rewrite(normalised, plan(proto, registry, bits=8), registry, sink=sink)
    assert stored == ["W.codes", "W.scales"]
    initializers = result.model.ir.graph.initializers
    assert initializers["W.codes"].const_value is initializers["W.codes.2"].const_value
    assert sorted(result.stored_bytes.values()) == [0, K * K + 2 * 2 * K]
    check_against_float(proto, result.model.ir)


def test_a_tied_table_and_head_share_one_initializer(registry):
    proto = shared_model(TABLE, *HEAD)
    quantized = quantize(proto, registry).model.ir
    assert sorted(name for name in quantized.graph.initializers if "W" in name) == ["W.codes", "W.scales"]
    check_against_float(proto, quantized)


@pytest.mark.parametrize(
    "readers",
    [
        (*TWO_MATMULS[:1], *HEAD),
        (TABLE, node("MatMul", ["X", "W"], ["B"], name="by_column")),
    ],
    ids=["matmul and transposed matmul", "table and matmul"],
)
def test_readers_along_different_axes_get_codes_of_their_own(registry, readers):
    proto = shared_model(*readers)
    quantized = quantize(proto, registry, bits=8).model.ir
    assert len([name for name in quantized.graph.initializers if "codes" in name]) == 2
    check_against_float(proto, quantized)


def test_a_weight_already_called_like_codes_keeps_its_name(registry):
    proto = model(
        graph(
            [node("MatMul", ["X", "W"], ["H"], name="fc"), node("Add", ["H", "W.codes"], ["A"], name="add")],
            [value("X", ["M", K])],
            [value("A", ["M", K])],
            {"W": (RNG.standard_normal((K, K)) / 8).astype(np.float32), "W.codes": np.ones(K, np.float32)},
        )
    )
    check_against_float(proto, quantize(proto, registry, bits=8).model.ir)


def test_weights_are_given_read_only(registry):
    seen = []

    def remember(good: QuantizedWeight) -> QuantizedWeight:
        seen.append(good)
        return good

    class Writer:
        name = "bad"

        def quantize(self, weight, scheme, evidence):
            weight[0, 0] = 1
            return remember(RoundToNearest().quantize(weight, scheme, evidence))

    writer = Plugin("bad", "weight quantizer", Writer(), "bad-dist", "6.6")
    registry = replace(registry, weight_quantizers={**registry.weight_quantizers, "bad": writer})
    with pytest.raises(PluginError, match="read-only"):
        quantize(matmul_model(RNG.standard_normal((K, N))), registry, method="bad")
    assert not seen
