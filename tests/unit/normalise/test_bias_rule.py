"""A bias of shape [1, N] is flattened where, and only where, the shape of the sum stays the same."""

import numpy as np
import onnx
import pytest
from agreement import assert_same
from graphs import graph, model, node, value

K, N = 16, 12
RNG = np.random.default_rng(0)


def biased(bias: tuple[int, ...], batch: list[int | str], *, swapped: bool = False) -> onnx.ModelProto:
    operands = ["b", "P"] if swapped else ["P", "b"]
    return model(
        graph(
            [node("MatMul", ["X", "W"], ["P"], name="fc"), node("Add", operands, ["Y"], name="add")],
            [value("X", [*batch, K])],
            [value("Y", [None] * max(len(bias), len(batch) + 1))],
            {
                "W": RNG.standard_normal((K, N)).astype(np.float32),
                "b": RNG.standard_normal(bias).astype(np.float32),
            },
        )
    )


def bias_shape(proto: onnx.ModelProto, index: int = 1) -> tuple[int, ...]:
    return assert_same(proto).graph.node("add").inputs[index].const_value.shape.numpy()


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize(
    ("bias", "batch"), [((1, N), ["M"]), ((1, N), ["A", "B"]), ((1, 1, N), ["A", "B"]), ((1, 1), ["M"])], ids=str
)
def test_flattened(bias, batch, swapped):
    assert bias_shape(biased(bias, batch, swapped=swapped), 0 if swapped else 1) == bias[-1:]


@pytest.mark.parametrize(
    ("bias", "batch"),
    [((N,), ["M"]), ((1, 1, N), ["M"]), ((3, N), [3]), ((3, 1), [3]), ((1, N), [])],
    ids=str,
)
def test_left_alone(bias, batch):
    """A bias of higher rank than the product raises the rank of the sum; one with real rows is none."""
    assert bias_shape(biased(bias, batch)) == bias
