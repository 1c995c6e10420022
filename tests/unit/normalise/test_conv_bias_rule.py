"""A constant behind a convolution becomes its bias, unless that would change what is computed."""

import numpy as np
import pytest
from agreement import assert_same
from graphs import graph, model, node, op_types, value

C_IN, C_OUT = 3, 4
RNG = np.random.default_rng(0)


def conv_model(shift_shape, *, op="Conv", bias=False, shared=False, shift_first=False, group=1):
    weights = {
        "W": RNG.standard_normal((C_OUT, C_IN // group, 3, 3) if op == "Conv" else (C_IN, C_OUT // group, 3, 3)).astype(
            np.float32
        ),
        "c": RNG.standard_normal(shift_shape).astype(np.float32),
    }
    if bias:
        weights["b"] = RNG.standard_normal(C_OUT).astype(np.float32)
    nodes = [node(op, ["X", "W", *(["b"] if bias else [])], ["conv"], name="conv", group=group)]
    nodes.append(node("Add", ["c", "conv"] if shift_first else ["conv", "c"], ["Y"]))
    outputs = [value("Y", [None] * max(4, len(shift_shape)))]
    if shared:
        nodes.append(node("Relu", ["conv"], ["Z"]))
        outputs.append(value("Z", [None] * 4))
    return model(graph(nodes, [value("X", [2, C_IN, 6, 6])], outputs, weights))


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(1, C_OUT, 1, 1), (C_OUT, 1, 1), (1,), (), (1, 1, 1, 1)], ids=str)
def test_folded(op, bias, shape):
    result = assert_same(conv_model(shape, op=op, bias=bias))
    assert op_types(result) == [op]
    assert result.graph.outputs[0].name == "Y"


def test_either_order_of_operands():
    assert op_types(assert_same(conv_model((1, C_OUT, 1, 1), shift_first=True))) == ["Conv"]


@pytest.mark.parametrize("shape", [(4,), (2, 1, 1, 1), (1, C_OUT, 4, 4), (1, 2, C_OUT, 1, 1)], ids=str)
def test_kept_where_it_is_no_bias(shape):
    assert op_types(assert_same(conv_model(shape))) == ["Conv", "Add"]


def test_kept_where_the_convolution_is_read_by_others():
    assert sorted(op_types(assert_same(conv_model((1, C_OUT, 1, 1), shared=True)))) == ["Add", "Conv", "Relu"]
