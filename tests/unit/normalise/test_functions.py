"""Model-local functions of other exporters are inlined before anything else."""

import numpy as np
import onnx
import pytest
from agreement import assert_same, normalised_graph
from graphs import graph, model, node, op_types, value
from onnx import helper

from onnxq.errors import ModelError

K = 24
RNG = np.random.default_rng(0)


def function(name: str, inputs: list[str], nodes: list[onnx.NodeProto], **attributes) -> onnx.FunctionProto:
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("exporter", 1)]
    return helper.make_function("exporter", name, inputs, ["y"], nodes, imports, **attributes)


LINEAR = function("Linear", ["x", "w", "b"], [node("Gemm", ["x", "w", "b"], ["y"], transB=1)])


def call_model(calls: list[onnx.NodeProto], functions: list[onnx.FunctionProto]) -> onnx.ModelProto:
    return model(
        graph(
            calls,
            [value("X", ["M", K])],
            [value("Y", ["M", K])],
            {
                "W": RNG.standard_normal((K, K)).astype(np.float32),
                "b": RNG.standard_normal(K).astype(np.float32),
            },
        ),
        opset=18,
        functions=functions,
        domains=["exporter"],
    )


def call(name: str, source: str, target: str, **attributes) -> onnx.NodeProto:
    return node(name, [source, "W", "b"], [target], domain="exporter", name=f"call_{target}", **attributes)


def test_two_calls_of_one_function():
    result = assert_same(call_model([call("Linear", "X", "H"), call("Linear", "H", "Y")], [LINEAR]))
    assert op_types(result).count("MatMul") == 2
    assert not result.functions


def test_a_function_that_calls_a_function():
    inner = node("Linear", ["x", "w", "b"], ["h"], domain="exporter")
    block = function("Block", ["x", "w", "b"], [inner, node("Relu", ["h"], ["y"])])
    result = assert_same(call_model([call("Block", "X", "Y")], [LINEAR, block]))
    assert op_types(result) == ["MatMul", "Add", "Relu"]


def test_attributes_are_passed_on():
    leaky = node("LeakyRelu", ["h"], ["y"])
    leaky.attribute.append(onnx.AttributeProto(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT))
    block = function("Leaky", ["x", "w", "b"], [node("Gemm", ["x", "w", "b"], ["h"]), leaky], attributes=["slope"])
    assert_same(call_model([call("Leaky", "X", "Y", slope=0.3)], [block]))


def test_constants_inside_a_function():
    half = node("Constant", [], ["half"], value_float=0.5)
    block = function(
        "Half", ["x", "w", "b"], [node("MatMul", ["x", "w"], ["h"]), half, node("Mul", ["h", "half"], ["y"])]
    )
    result = assert_same(call_model([call("Half", "X", "Y")], [block]))
    assert "Constant" not in op_types(result)


def test_functions_that_call_each_other_in_a_circle_are_an_error():
    ping = function("Ping", ["x", "w", "b"], [node("Pong", ["x", "w", "b"], ["y"], domain="exporter")])
    pong = function("Pong", ["x", "w", "b"], [node("Ping", ["x", "w", "b"], ["y"], domain="exporter")])
    main = call_model([call("Linear", "X", "Y")], [LINEAR]).graph
    main.node[0].op_type = "Ping"
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("exporter", 1)]
    proto = helper.make_model(main, opset_imports=imports, functions=[ping, pong], ir_version=10)
    with pytest.raises(ModelError, match="in a circle"):
        normalised_graph(proto)
