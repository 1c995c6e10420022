"""Survey: every float weight of 1024 elements and two dims is a site, or a skip with a reason."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graphs import graph, in_memory, model, node, value
from hypothesis import given
from hypothesis import strategies as st

from onnxq.normalise import normalise
from onnxq.survey import Survey, survey_model

RNG = np.random.default_rng(0)


def weight(*shape: int, dtype=np.float32) -> np.ndarray:
    return RNG.standard_normal(shape).astype(dtype)


def surveyed(proto: onnx.ModelProto) -> Survey:
    return survey_model(normalise(in_memory(proto), opset=21))


def one_node(item: onnx.NodeProto, weights: dict[str, np.ndarray], inputs=None, rank: int = 2) -> onnx.ModelProto:
    given_inputs = inputs if inputs is not None else [value("X", ["M", 64])]
    return model(graph([item], given_inputs, [value("Y", [None] * rank)], weights))


SITES = {
    "MatMul": (node("MatMul", ["X", "W"], ["Y"]), weight(64, 32), None, ("matmul", 64, 32)),
    "Gemm": (node("Gemm", ["X", "W"], ["Y"], transB=1), weight(32, 64), None, ("matmul", 64, 32)),
    "Gather": (
        node("Gather", ["W", "ids"], ["Y"]),
        weight(100, 16),
        [value("ids", ["M"], np.int64)],
        ("gather", 16, 100),
    ),
    "Conv": (
        node("Conv", ["X", "W"], ["Y"]),
        weight(16, 8, 3, 3),
        [value("X", ["M", 8, 9, 9])],
        ("conv", 72, 16),
    ),
}


@pytest.mark.parametrize(("item", "array", "inputs", "expected"), SITES.values(), ids=SITES)
def test_what_is_a_site(item, array, inputs, expected):
    found = surveyed(one_node(item, {"W": array}, inputs, rank=4 if array.ndim == 4 else 2))
    assert not found.skips
    (site,) = found.sites
    assert (site.kind, site.k, site.n) == expected
    assert (site.dtype, site.output, site.scope) == ("FLOAT", "Y", "")
    assert site.float_bytes == array.nbytes
    assert site.elements == array.size


SKIPS = {
    "left operand": (node("MatMul", ["W", "X"], ["Y"]), weight(32, 64), [value("X", [64, "M"])], "left operand"),
    "batched": (node("MatMul", ["X", "W"], ["Y"]), weight(4, 64, 8), None, "batched weight of rank 3"),
    "gathered columns": (
        node("Gather", ["W", "ids"], ["Y"], axis=1),
        weight(100, 16),
        [value("ids", ["M"], np.int64)],
        "along axis 1",
    ),
    "gather of rank 3": (
        node("Gather", ["W", "ids"], ["Y"]),
        weight(100, 4, 4),
        [value("ids", ["M"], np.int64)],
        "Gather of rank 3",
    ),
    "Add": (node("Add", ["X", "W"], ["Y"]), weight(20, 64), None, "Add does not multiply"),
    "constant image": (
        node("Conv", ["W", "X"], ["Y"]),
        weight(1, 8, 16, 16),
        [value("X", [4, 8, 3, 3])],
        "a constant image",
    ),
    "ConvTranspose": (
        node("ConvTranspose", ["X", "W"], ["Y"]),
        weight(8, 16, 3, 3),
        [value("X", ["M", 8, 9, 9])],
        "ConvTranspose",
    ),
    "LSTM": (
        node("LSTM", ["X", "W", "R"], ["Y"], hidden_size=8),
        weight(1, 32, 64),
        [value("X", ["T", "M", 64]), value("R", [1, 32, 8])],
        "recurrent weights",
    ),
    "Einsum": (node("Einsum", ["X", "W"], ["Y"], equation="mk,kn->mn"), weight(64, 32), None, "Einsum does not"),
    "float64": (
        node("MatMul", ["X", "W"], ["Y"]),
        weight(64, 32, dtype=np.float64),
        [value("X", ["M", 64], np.float64)],
        "float64",
    ),
}


@pytest.mark.parametrize(("item", "array", "inputs", "reason"), SKIPS.values(), ids=SKIPS)
def test_what_is_skipped_has_a_reason(item, array, inputs, reason):
    proto = one_node(item, {"W": array}, inputs)
    if array.dtype == np.float64:
        proto.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    found = surveyed(proto)
    assert not found.sites
    (skip,) = found.skips
    assert reason in skip.reason
    assert (skip.weight, skip.elements, skip.bytes) == ("W", array.size, array.nbytes)


def test_an_operator_of_another_domain_is_named():
    proto = model(
        graph(
            [node("FusedMatMul", ["X", "W"], ["Y"], domain="com.microsoft")],
            [value("X", ["M", 64])],
            [value("Y", ["M", 32])],
            {"W": weight(64, 32)},
        ),
        domains=["com.microsoft"],
    )
    assert "com.microsoft::FusedMatMul" in surveyed(proto).skips[0].reason


def test_an_input_with_a_default_is_no_weight():
    proto = one_node(node("MatMul", ["X", "W"], ["Y"]), {"W": weight(64, 32)})
    proto.graph.input.append(value("W", [64, 32]))
    assert "graph input with a default" in surveyed(proto).skips[0].reason


@pytest.mark.parametrize("shape", [(31, 33), (1024,)])
def test_small_weights_and_vectors_are_not_mentioned(shape):
    inputs = [value("X", ["M", shape[-1] if len(shape) == 1 else 31])]
    item = node("Add" if len(shape) == 1 else "MatMul", ["X", "W"], ["Y"])
    found = surveyed(one_node(item, {"W": weight(*shape)}, inputs))
    assert found == Survey((), ())


def test_sites_come_in_graph_order_with_their_scope():
    branches = {
        f"{name}_branch": graph(
            [node("MatMul", ["X", "W"], [name], name=f"fc_{name}")],
            [],
            [value(name, ["M", 32])],
            {"W": weight(64, 32)},
            name=name,
        )
        for name in ("then", "else")
    }
    proto = model(
        graph(
            [
                node("If", ["flag"], ["H"], name="if", **branches),
                node("MatMul", ["H", "V"], ["Y"], name="last"),
            ],
            [value("X", ["M", 64]), value("flag", [], np.bool_)],
            [value("Y", ["M", 64])],
            {"V": weight(32, 64)},
        )
    )
    sites = surveyed(proto).sites
    assert [site.node for site in sites] == ["fc_else", "fc_then", "last"]
    assert [site.scope for site in sites] == ["if.else_branch", "if.then_branch", ""]
    assert len({site.storage for site in sites}) == 3


@pytest.mark.parametrize(("dtype", "skipped"), [(np.float32, False), (np.float16, True)])
def test_float16_matmuls_inside_a_branch_are_skipped(dtype, skipped):
    """Stock onnxruntime 1.31 runs their packed form to zeros on the CPU; see test_convert_cli."""
    from tiny_models import branching

    found = surveyed(branching(dtype))
    inside = {item.node for item in (found.skips if skipped else found.sites)}
    assert inside >= {"/then/own", "/then/shared", "/else/own", "/else/shared"}
    assert "/first" in {site.node for site in found.sites}


def test_a_transpose_that_several_matmuls_read_is_a_site_for_each():
    nodes = [
        node("Transpose", ["W"], ["T"], perm=[1, 0]),
        node("MatMul", ["X", "T"], ["Y"], name="one"),
        node("MatMul", ["X", "T"], ["Z"], name="two"),
        node("Gather", ["W", "ids"], ["R"], name="rows"),
    ]
    inputs = [value("X", ["M", 64]), value("ids", ["M"], np.int64)]
    outputs = [value("Y", ["M", 32]), value("Z", ["M", 32]), value("R", ["M", 64])]
    found = surveyed(model(graph(nodes, inputs, outputs, {"W": weight(32, 64)})))
    assert not found.skips
    kinds = {site.node: site.kind for site in found.sites}
    assert kinds == {"one": "matmul_transposed", "two": "matmul_transposed", "rows": "gather"}
    assert len({site.storage for site in found.sites}) == 1


READERS = ("MatMul", "Gemm", "Add", "Mul", "Gather", "Transpose+MatMul", "Einsum")


@given(st.lists(st.sampled_from(READERS), min_size=1, max_size=8), st.integers(1, 3))
def test_no_weight_is_forgotten(readers, shared):
    """Whatever reads it, and however many share it: each big float weight of the normalised model is accounted for."""
    nodes, source = [], "X"
    weights = {f"W{index}": weight(64, 64) for index in range(len(readers))}
    for index, reader in enumerate(readers):
        array, target = f"W{index % shared}", f"H{index}"
        match reader:
            case "Gather":
                nodes += [node("Gather", [array, "ids"], [f"G{index}"]), node("Add", [source, f"G{index}"], [target])]
            case "Transpose+MatMul":
                nodes += [
                    node("Transpose", [array], [f"T{index}"], perm=[1, 0]),
                    node("MatMul", [source, f"T{index}"], [target]),
                ]
            case "Einsum":
                nodes.append(node("Einsum", [source, array], [target], equation="mk,kn->mn"))
            case _:
                nodes.append(node(reader, [source, array], [target]))
        source = target
    proto = model(
        graph(
            nodes,
            [value("X", [64, 64]), value("ids", [64], np.int64)],
            [value(source, [64, 64])],
            weights,
        )
    )
    normalised = normalise(in_memory(proto), opset=21)
    found = survey_model(normalised)
    mentioned = {site.weight for site in found.sites} | {skip.weight for skip in found.skips}
    big = {name for name, item in normalised.ir.graph.initializers.items() if item.const_value.size >= 1024}
    assert mentioned == big
    assert all(skip.reason for skip in found.skips)
    names = [item.name for item in ir.traversal.RecursiveGraphIterator(normalised.ir.graph)]
    assert {site.node for site in found.sites} <= set(names)
