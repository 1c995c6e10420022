"""Constant nodes and Identity chains become initializers, in every scope."""

from itertools import pairwise

import numpy as np
import onnx
import pytest
from agreement import assert_same, normalised_graph
from graphs import graph, model, node, op_types, tensor, value

RNG = np.random.default_rng(0)
K, N = 16, 12


def constant_model(*nodes: onnx.NodeProto, output: tuple[str, list[int | str]] = ("Y", ["M", N])) -> onnx.ModelProto:
    return model(
        graph(
            nodes,
            [value("X", ["M", K])],
            [value(*output)],
            {"W": RNG.standard_normal((K, N)).astype(np.float32)},
        )
    )


KINDS = {
    "value": {"value": tensor("", RNG.standard_normal((K, N)).astype(np.float32))},
    "value_float": {"value_float": 1.5},
    "value_floats": {"value_floats": RNG.standard_normal(N).tolist()},
}


@pytest.mark.parametrize("attribute", KINDS.values(), ids=KINDS)
def test_float_constants(attribute):
    reader = "MatMul" if "value" in attribute else "Mul"
    nodes = [node("Constant", [], ["C"], **attribute)]
    if reader == "MatMul":
        nodes.append(node("MatMul", ["X", "C"], ["Y"]))
    else:
        nodes += [node("MatMul", ["X", "W"], ["P"]), node("Mul", ["P", "C"], ["Y"])]
    result = assert_same(constant_model(*nodes))
    assert "Constant" not in op_types(result)


@pytest.mark.parametrize("attribute", [{"value_int": 2}, {"value_ints": [-1]}])
def test_integer_constants(attribute):
    proto = constant_model(
        node("Constant", [], ["C"], **attribute),
        node("Constant", [], ["minus_one"], value_ints=[-1]),
        node("Reshape", ["C", "minus_one"], ["axis"]),
        node("Cast", ["axis"], ["factor"], to=1),
        node("MatMul", ["X", "W"], ["P"]),
        node("Mul", ["P", "factor"], ["Y"]),
    )
    assert "Constant" not in op_types(assert_same(proto))


@pytest.mark.parametrize("attribute", [{"value_string": "a"}, {"value_strings": ["a", "b"]}])
def test_string_constants(attribute):
    """They go through unharmed; only their type matters here: nothing computes with them in a quantized model."""
    proto = constant_model(
        node("Constant", [], ["C"], **attribute),
        node("Shape", ["C"], ["S"]),
        node("Cast", ["S"], ["F"], to=1),
        node("ReduceSum", ["F"], ["R"], keepdims=0),
        node("MatMul", ["X", "W"], ["P"]),
        node("Add", ["P", "R"], ["Y"]),
    )
    assert_same(proto)


def test_a_constant_that_is_an_output_of_the_model():
    proto = constant_model(
        node("Constant", [], ["Y"], value=tensor("", RNG.standard_normal((3, N)).astype(np.float32))),
        node("MatMul", ["X", "W"], ["P"]),
        output=("Y", [3, N]),
    )
    assert_same(proto)


def test_identity_chains_disappear():
    proto = constant_model(
        node("Identity", ["W"], ["W1"]),
        node("Identity", ["W1"], ["W2"]),
        node("Identity", ["X"], ["X1"]),
        node("MatMul", ["X1", "W2"], ["P"], name="fc"),
        node("Identity", ["P"], ["Y"], name="out"),
    )
    result = assert_same(proto)
    assert op_types(result) == ["MatMul", "Identity"]
    assert result.graph.node("fc").inputs[1].name == "W"
    assert result.graph.outputs[0].name == "Y"


@pytest.mark.parametrize("nodes", [("Identity",), ("Identity", "Identity")], ids=["one", "two"])
def test_an_input_that_is_an_output(nodes):
    names = ["X", *(f"I{index}" for index in range(len(nodes) - 1)), "Y"]
    chain = [node("Identity", [a], [b]) for a, b in pairwise(names)]
    assert_same(constant_model(*chain, output=("Y", ["M", K])))


def listed_as_input(ir_version: int, opset: int = 11) -> onnx.ModelProto:
    weight = RNG.standard_normal((K, N)).astype(np.float32)
    return model(
        graph(
            [node("MatMul", ["X", "W"], ["Y"], name="fc")],
            [value("X", ["M", K]), value("W", [K, N])],
            [value("Y", ["M", N])],
            {"W": weight},
        ),
        opset=opset,
        ir_version=ir_version,
    )


def test_before_ir_4_initializers_listed_as_inputs_are_weights():
    result = assert_same(listed_as_input(3, opset=8))
    assert [item.name for item in result.graph.inputs] == ["X"]
    assert result.ir_version >= 10


def test_from_ir_4_an_input_with_a_default_stays_one():
    result = normalised_graph(listed_as_input(7))
    assert [item.name for item in result.graph.inputs] == ["X", "W"]
    assert_same(listed_as_input(7), W=RNG.standard_normal((K, N)).astype(np.float32))
