"""Spelled-out activation functions become one operator, whatever the spelling; other formulas are left alone."""

import numpy as np
import onnx
import pytest
from agreement import assert_same
from graphs import graph, model, node, op_types, value

ROOT = float(np.sqrt(2.0))
TANH = float(np.sqrt(2.0 / np.pi))


def formula(text: str, *, extra_output: str | None = None, constant_shape=()) -> onnx.ModelProto:
    """A model from lines `name = Op operand operand`; numbers are constants, x is the input, y the output."""
    nodes, weights = [], {}
    for line in text.strip().splitlines():
        name, right = (part.strip() for part in line.split("="))
        op, *operands = right.split()
        names = []
        for operand in operands:
            try:
                number = float(operand)
            except ValueError:
                names.append("" if operand == "none" else operand)
                continue
            key = f"c{len(weights)}"
            weights[key] = np.full(constant_shape if op != "Clip" else (), number, np.float32)
            names.append(key)
        nodes.append(node(op, names, [name]))
    outputs = [value(name, [None] * max(3, len(constant_shape))) for name in ("y", extra_output) if name]
    return model(graph(nodes, [value("x", [2, 5, 7])], outputs, weights))


FEED = {"x": np.linspace(-8, 8, 70, dtype=np.float32).reshape(2, 5, 7)}

GELU = f"a = Div x {ROOT}\nb = Erf a\nc = Add b 1\nd = Mul x c\ny = Mul d 0.5"
SPELLINGS = {
    "erf, half last": (GELU, "Gelu"),
    "erf, half first": (f"h = Mul x 0.5\na = Mul x {1 / ROOT}\nb = Erf a\nc = Add 1 b\ny = Mul h c", "Gelu"),
    "erf, half in the middle": (f"a = Div x {ROOT}\nb = Erf a\nc = Add b 1\nd = Mul 0.5 c\ny = Mul d x", "Gelu"),
    "tanh, cube by Mul": (
        f"s = Mul 0.044715 x\nt = Mul x s\nu = Mul x t\nv = Add x u\nw = Mul {TANH} v\na = Tanh w\n"
        "b = Add 1 a\nc = Mul 0.5 b\ny = Mul x c",
        "Gelu",
    ),
    "tanh, cube by Pow": (
        f"s = Pow x 3\nt = Mul s 0.044715\nv = Add x t\nw = Mul v {TANH}\na = Tanh w\nb = Add a 1\nc = Mul x b\n"
        "y = Mul c 0.5",
        "Gelu",
    ),
    "hard swish": ("a = Add x 3\nb = Clip a 0 6\nc = Mul x b\ny = Div c 6", "HardSwish"),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_folded(name):
    text, expected = SPELLINGS[name]
    assert op_types(assert_same(formula(text), **FEED)) == [expected]


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_function_of_something_computed_elementwise(name):
    text, expected = SPELLINGS[name]
    shifted = "x1 = Add x0 0.25\n" + text.replace(" x", " x1")
    proto = formula(shifted.replace("x0", "x", 1))
    assert op_types(assert_same(proto, **FEED)) == ["Add", expected]


@pytest.mark.parametrize(
    "text",
    [
        GELU.replace(str(ROOT), "1.5"),
        GELU.replace("Add b 1", "Add b 0.99"),
        GELU.replace("Mul d 0.5", "Mul d 0.51"),
        SPELLINGS["hard swish"][0].replace("Div c 6", "Div c 6.1"),
        SPELLINGS["hard swish"][0].replace("Clip a 0 6", "Clip a 0 none"),
        SPELLINGS["tanh, cube by Pow"][0].replace("0.044715", "0.054715"),
    ],
)
def test_a_neighbouring_formula_is_left_alone(text):
    operators = op_types(assert_same(formula(text), **FEED))
    assert not {"Gelu", "HardSwish"} & set(operators)


def test_a_value_in_between_that_others_read_is_kept():
    assert "Erf" in op_types(assert_same(formula(GELU, extra_output="c"), **FEED))


def test_constants_that_raise_the_rank_are_no_scalars():
    assert "Erf" in op_types(assert_same(formula(GELU, constant_shape=(1, 1, 1, 1)), **FEED))
