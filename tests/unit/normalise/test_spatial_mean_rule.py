"""A mean over all positions becomes a pooling; any other mean stays."""

import numpy as np
import pytest
from agreement import assert_same
from graphs import graph, model, node, op_types, value


def mean(axes, *, keepdims=1, rank=4):
    return model(
        graph(
            [node("ReduceMean", ["X", "axes"], ["Y"], keepdims=keepdims)],
            [value("X", [2, 3, 4, 5, 6][:rank])],
            [value("Y", [None] * (rank if keepdims else rank - len(axes)))],
            {"axes": np.array(axes, np.int64)},
        )
    )


@pytest.mark.parametrize(("axes", "rank"), [([2, 3], 4), ([-1, -2], 4), ([3, 2], 4), ([2, 3, 4], 5)])
def test_pooled(axes, rank):
    assert op_types(assert_same(mean(axes, rank=rank))) == ["GlobalAveragePool"]


@pytest.mark.parametrize(("axes", "keepdims", "rank"), [([2], 1, 4), ([1, 2, 3], 1, 4), ([2, 3], 0, 4), ([2], 1, 3)])
def test_kept(axes, keepdims, rank):
    assert op_types(assert_same(mean(axes, keepdims=keepdims, rank=rank))) == ["ReduceMean"]
