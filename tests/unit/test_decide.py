"""Decide: one scheme per weight, overrides in order, skip above all, and a warning for every wish without effect."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from graphs import graph, model, node, value
from onnxq_plugins.packed import Packed
from stages import plan

from onnxq.decide import Plan
from onnxq.errors import RecipeError
from onnxq.plugin.registry import Plugin
from onnxq.scheme import Scheme

RNG = np.random.default_rng(0)
K, V = 64, 30


def weight(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def language_model(n: int = 48) -> onnx.ModelProto:
    """Table -> up -> down -> head tied to the table; a Conv beside it."""
    return model(
        graph(
            [
                node("Gather", ["table", "ids"], ["E"], name="/embed"),
                node("MatMul", ["E", "up"], ["U"], name="/layer/up"),
                node("MatMul", ["U", "down"], ["D"], name="/layer/down"),
                node("Transpose", ["table"], ["T"], perm=[1, 0], name="/t"),
                node("MatMul", ["D", "T"], ["logits"], name="/head"),
                node("Conv", ["image", "filters"], ["features"], name="/conv"),
            ],
            [value("ids", ["M"], np.int64), value("image", [1, 16, 9, 9])],
            [value("logits", ["M", V]), value("features", [1, 8, 7, 7])],
            {"table": weight(V, K), "up": weight(K, n), "down": weight(n, K), "filters": weight(8, 16, 3, 3)},
        )
    )


def schemes(made: Plan) -> dict[str, str]:
    return {decision.site.node: str(decision.scheme) for decision in made.decisions}


def reasons(made: Plan) -> dict[str, str]:
    return {skip.node: skip.reason for skip in made.skips}


def test_defaults(registry):
    made = plan(language_model(), registry)
    assert schemes(made) == {
        "/embed": "int8 block 32",
        "/layer/up": "uint4 block 32",
        "/layer/down": "uint4 block 32",
        "/head": "int8 block 32",
    }
    assert [decision.kernel for decision in made.decisions] == ["DequantizeLinear", *["MatMulNBits"] * 3]
    assert "--format packed" in reasons(made)["/conv"]
    assert made.opset == 21
    assert made.warnings == ()


def test_bits_and_table_bits(registry):
    made = plan(language_model(), registry, bits=8, table_bits=4, symmetric=True)
    assert set(schemes(made).items()) >= {("/embed", "int4 block 32"), ("/layer/up", "int8 block 32")}


@pytest.mark.parametrize("node_name", ["/embed", "/head"])
def test_an_override_of_one_reader_of_a_tied_table_holds_for_both(registry, node_name):
    made = plan(language_model(), registry, override=({"nodes": node_name, "bits": 4, "symmetric": False},))
    assert schemes(made)["/embed"] == schemes(made)["/head"] == "uint4 block 32"


@pytest.mark.parametrize("node_name", ["/embed", "/head"])
def test_a_skip_of_one_reader_keeps_the_weight_float_for_both(registry, node_name):
    made = plan(language_model(), registry, skip=(f"^{node_name}$",))
    assert not {"/embed", "/head"} & set(schemes(made))
    assert "weight shared by 2 nodes" in reasons(made)["/embed"]


def test_later_overrides_win_and_are_laid_over_each_other(registry):
    made = plan(
        language_model(),
        registry,
        override=(
            {"nodes": "layer", "bits": 8, "block_size": 64, "method": "mse"},
            {"nodes": "down", "bits": 4, "symmetric": True},
        ),
    )
    assert schemes(made)["/layer/up"] == "int8 block 64"
    assert schemes(made)["/layer/down"] == "int4 block 64"
    methods = {decision.site.node: decision.method for decision in made.decisions}
    assert (methods["/layer/up"], methods["/layer/down"], methods["/head"]) == ("mse", "mse", "rtn")


def test_skip_wins_over_override(registry):
    made = plan(language_model(), registry, override=({"nodes": "up", "bits": 8},), skip=("up",))
    assert "/layer/up" not in schemes(made)
    assert reasons(made)["/layer/up"] == "--skip up"


def test_table_bits_float_keeps_tables_and_tied_heads(registry):
    made = plan(language_model(), registry, table_bits="float")
    assert set(schemes(made)) == {"/layer/up", "/layer/down"}
    assert reasons(made)["/head"] == "--table-bits float"


def test_a_forced_format_takes_convolutions_too(registry):
    made = plan(language_model(), registry, format="packed")
    decision = next(item for item in made.decisions if item.site.node == "/conv")
    assert decision.scheme == Scheme(8, True, "per_axis")
    assert decision.kernel == "Conv"


def test_one_scale_per_channel_is_for_matmuls_tables_keep_blocks(registry):
    made = plan(language_model(), registry, block_size="channel")
    assert schemes(made)["/layer/up"] == "uint4 per axis"
    assert schemes(made)["/embed"] == "int8 block 32"
    assert made.warnings == ("'/embed': tables are packed in blocks, block_size channel becomes 32",)


@pytest.mark.parametrize("n", [46, 47])
def test_two_bits_need_n_divisible_by_four_or_become_wider_with_a_warning(registry, n):
    made = plan(language_model(n), registry, bits=2)
    up = next(item for item in made.decisions if item.site.node == "/layer/up")
    assert up.scheme.bits == 4
    assert schemes(made)["/layer/down"] == "uint2 block 32"  # its N is 64
    (warning,) = made.warnings
    assert warning == f"'/layer/up' gets 4 bits: 2-bit weights need N divisible by 4, this one has N={n}"
    assert made.opset == 25


class Refusing(Packed):
    """A format that refuses whatever is not 8 bits, and one site altogether."""

    name = "refusing"

    def refuses(self, site, scheme):
        if site.node == "/layer/down":
            return "not this one; skip it"
        return None if scheme.bits == 8 else "only 8 bits"


def test_what_a_format_refuses_gets_twice_the_bits_or_is_an_error(registry):
    plugin = Plugin("refusing", "format", Refusing(), "dist", "1.0")
    registry = replace(registry, formats={**registry.formats, "refusing": plugin})
    made = plan(language_model(), registry, format="refusing", skip=("down",))
    assert schemes(made)["/layer/up"] == "uint8 block 32"
    assert "'/layer/up' gets 8 bits: only 8 bits" in made.warnings
    with pytest.raises(RecipeError, match="MatMul '/layer/down': not this one; skip it"):
        plan(language_model(), registry, format="refusing")


def test_unknown_names_are_errors_before_any_work(registry):
    for wishes in (
        {"method": "rtm"},
        {"format": "pakced"},
        {"override": ({"nodes": "up", "method": "rtm"},)},
    ):
        with pytest.raises(RecipeError, match="did you mean"):
            plan(language_model(), registry, **wishes)


def test_wishes_that_match_nothing_are_warnings(registry):
    made = plan(language_model(), registry, skip=("lm_head",), override=({"nodes": "layers", "bits": 8},))
    assert len(made.warnings) == 2
    assert "--skip 'lm_head' matches no node" in made.warnings[0]
    assert "--override 'layers' matches no node" in made.warnings[1]


def test_patterns_that_match_only_nodes_without_weights_are_warnings(registry):
    proto = language_model()
    proto.graph.node.append(node("Relu", ["logits"], ["act"], name="/act"))
    proto.graph.output.append(value("act", ["M", V]))
    for wishes in ({"skip": ("^/act",)}, {"override": ({"nodes": "^/act", "bits": 8},)}):
        (warning,) = plan(proto, registry, **wishes).warnings
        assert "'^/act' matches no node with a weight, only '/act'" in warning


def test_wishes_that_a_weight_cannot_have_are_warnings(registry):
    wishes = {"format": "packed", "override": ({"nodes": "/conv|/up", "bits": 6},)}
    made = plan(language_model(), registry, **wishes)
    assert made.warnings == ("'/conv': bits:6 has no effect, convolutions take int8 per axis weights only",)
    (warning,) = plan(language_model(), registry, calibrator="minmax", activation_signed=True).warnings
    assert warning == "no node runs on integer codes: activation_signed, calibrator has no effect"


def test_an_override_takes_a_node_out_of_the_codebook(registry):
    def up(**rule):
        made = plan(language_model(), registry, codebook="nf4", override=({"nodes": "/up", **rule},))
        assert schemes(made)["/layer/down"] == "codebook4 block 32"
        return schemes(made)["/layer/up"]

    assert up(bits=8) == "int8 block 32"
    assert up(method="mse") == "uint4 block 32"
    assert up(block_size="channel") == "uint4 per axis"
    assert up(block_size=64) == "codebook4 block 64"
    with pytest.raises(RecipeError, match="Gather '/embed': nf4 gives indices into a codebook"):
        plan(language_model(), registry, codebook="nf4", override=({"nodes": "/embed", "method": "nf4"},))


def test_a_weight_that_something_else_reads_in_float_stays_float(registry):
    proto = language_model()
    proto.graph.node.append(node("Sub", ["up", "half"], ["shifted"], name="/sub"))
    proto.graph.node.append(node("ReduceSum", ["shifted"], ["total"], name="/sum"))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(0.5), "half"))
    proto.graph.output.append(value("total", [1, 1]))
    made = plan(proto, registry)
    assert "/layer/up" not in schemes(made)
    assert reasons(made)["/layer/up"] == "'/sub' reads the same weight in float"


def test_a_weight_of_the_same_name_in_another_branch_does_not_count(registry):
    reads = {"then": node("Add", ["X", "W"], ["then"], name="add"), "else": node("MatMul", ["X", "W"], ["else"])}
    branches = {
        f"{name}_branch": graph([item], [], [value(name, [K, K])], {"W": weight(K, K)}, name=name)
        for name, item in reads.items()
    }
    inputs = [value("X", [K, K]), value("flag", [], np.bool_)]
    made = plan(
        model(graph([node("If", ["flag"], ["Y"], name="if", **branches)], inputs, [value("Y", [K, K])])), registry
    )
    assert [decision.site.op_type for decision in made.decisions] == ["MatMul"]
    assert [skip.node for skip in made.skips] == ["add"]


def test_every_site_is_decided_or_skipped_once(registry):
    for wishes in ({}, {"skip": ("layer",)}, {"table_bits": "float"}, {"format": "packed"}):
        made = plan(language_model(), registry, **wishes)
        names = [decision.site.node for decision in made.decisions] + [skip.node for skip in made.skips]
        assert sorted(names) == ["/conv", "/embed", "/head", "/layer/down", "/layer/up"]
