"""Transpose, Cast, Reshape, Squeeze and Unsqueeze of a weight are folded; a tied table keeps its one copy."""

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from agreement import assert_same
from graphs import graph, model, node, op_types, value

from onnxq.model import all_initializers
from onnxq.normalise.transposed_weights import fold_weight_views

K, N = 40, 30
RNG = np.random.default_rng(0)


def viewed(nodes, stored: np.ndarray, extra=None, *, dtype=np.float32) -> onnx.ModelProto:
    """X @ (W seen through `nodes`, which end in V)."""
    return model(
        graph(
            [*nodes, node("MatMul", ["X", "V"], ["Y"], name="fc")],
            [value("X", ["M", K], dtype)],
            [value("Y", ["M", N], dtype)],
            {"W": stored, **(extra or {})},
        )
    )


def ints(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


VIEWS = {
    "transpose": ([node("Transpose", ["W"], ["V"], perm=[1, 0])], (N, K), {}),
    "transpose without perm": ([node("Transpose", ["W"], ["V"])], (N, K), {}),
    "transpose of rank 3": (
        [node("Transpose", ["W"], ["T"], perm=[2, 0, 1]), node("Squeeze", ["T", "axes"], ["V"])],
        (K, N, 1),
        {"axes": ints(0)},
    ),
    "reshape": ([node("Reshape", ["W", "shape"], ["V"])], (K * N,), {"shape": ints(K, N)}),
    "reshape with -1": ([node("Reshape", ["W", "shape"], ["V"])], (K * N,), {"shape": ints(-1, N)}),
    "reshape with 0": ([node("Reshape", ["W", "shape"], ["V"])], (K, N, 1), {"shape": ints(0, -1)}),
    "squeeze": ([node("Squeeze", ["W", "axes"], ["V"])], (1, K, N, 1), {"axes": ints(0, -1)}),
    "squeeze of all ones": ([node("Squeeze", ["W"], ["V"])], (1, K, N, 1), {}),
    "unsqueeze and squeeze": (
        [node("Unsqueeze", ["W", "axes"], ["U"]), node("Squeeze", ["U", "axes"], ["V"])],
        (K, N),
        {"axes": ints(-1)},
    ),
    "a chain": (
        [
            node("Identity", ["W"], ["I"]),
            node("Reshape", ["I", "shape"], ["R"]),
            node("Transpose", ["R"], ["V"], perm=[1, 0]),
        ],
        (N * K,),
        {"shape": ints(N, K)},
    ),
}


@pytest.mark.parametrize(("nodes", "shape", "extra"), VIEWS.values(), ids=VIEWS)
def test_a_view_of_a_weight_is_a_weight(nodes, shape, extra):
    result = assert_same(viewed(nodes, RNG.standard_normal(shape).astype(np.float32), extra))
    assert op_types(result) == ["MatMul"]
    assert result.graph.node("fc").inputs[1].const_value.shape.numpy() == (K, N)


@pytest.mark.parametrize("stored", [np.float16, ml_dtypes.bfloat16])
def test_a_widening_cast_is_folded(stored):
    proto = viewed([node("Cast", ["W"], ["V"], to=1)], RNG.standard_normal((K, N)).astype(stored))
    result = assert_same(proto)
    assert op_types(result) == ["MatMul"]


def test_a_narrowing_cast_stays():
    proto = viewed(
        [node("Cast", ["W"], ["V"], to=10)], RNG.standard_normal((K, N)).astype(np.float32), dtype=np.float16
    )
    assert op_types(assert_same(proto)) == ["Cast", "MatMul"]


def test_a_reshape_to_a_shape_computed_at_run_time_stays():
    proto = model(
        graph(
            [node("Reshape", ["W", "shape"], ["V"]), node("MatMul", ["X", "V"], ["Y"], name="fc")],
            [value("X", ["M", K]), value("shape", [2], np.int64)],
            [value("Y", ["M", None])],
            {"W": RNG.standard_normal(K * N).astype(np.float32)},
        )
    )
    assert "Reshape" in op_types(assert_same(proto, shape=ints(K, N)))


WRONG = {
    "reshape to another number of elements": (node("Reshape", ["W", "shape"], ["V"]), ints(7, 7)),
    "reshape that cannot be divided": (node("Reshape", ["W", "shape"], ["V"]), ints(-1, 7)),
    "reshape with two open dims": (node("Reshape", ["W", "shape"], ["V"]), ints(-1, -1)),
    "reshape that keeps a dim that is not there": (node("Reshape", ["W", "shape"], ["V"]), ints(K, N, 0)),
    "squeeze of a dim that is not 1": (node("Squeeze", ["W", "axes"], ["V"]), ints(0)),
    "squeeze of an axis that is not there": (node("Squeeze", ["W", "axes"], ["V"]), ints(5)),
    "unsqueeze of an axis twice": (node("Unsqueeze", ["W", "axes"], ["V"]), ints(0, 0)),
    "transpose of axes that are not there": (node("Transpose", ["W"], ["V"], perm=[5, 6]), ints(0)),
}


@pytest.mark.parametrize(("wrong", "extra"), WRONG.values(), ids=WRONG)
def test_a_view_that_cannot_be_is_left_for_onnxruntime_to_refuse(wrong, extra):
    weights = {"W": np.ones((K, N), np.float32), "shape": extra, "axes": extra}
    proto = onnx.helper.make_model(graph([wrong], [], [value("V", None)], weights))
    assert fold_weight_views(ir.from_proto(proto)) == 0


def tied(reader: onnx.NodeProto, read: list[int | str]) -> onnx.ModelProto:
    """A table [N, K] that `reader` reads besides a transposed head; its output H has the shape `read`."""
    return model(
        graph(
            [reader, node("Transpose", ["W"], ["V"], perm=[1, 0]), node("MatMul", ["X", "V"], ["Y"], name="head")],
            [value("X", ["M", K]), value("ids", ["B"], np.int64), value("Z", ["M", N])],
            [value("Y", ["M", N]), value("H", read)],
            {"W": RNG.standard_normal((N, K)).astype(np.float32)},
        )
    )


def test_a_table_tied_to_a_head_is_stored_once():
    result = assert_same(tied(node("Gather", ["W", "ids"], ["H"], name="embed"), ["B", K]))
    assert op_types(result) == ["Gather", "Transpose", "MatMul"]
    assert [item.name for item in all_initializers(result)] == ["W"]


def test_a_head_beside_a_matmul_on_the_same_weight_is_folded():
    """Only rows of a table can share its packed bytes: two matmuls run blocks along different axes."""
    result = assert_same(tied(node("MatMul", ["Z", "W"], ["H"], name="body"), ["M", K]))
    assert op_types(result) == ["MatMul", "MatMul"]


def test_a_view_that_is_an_output_of_the_model_stays():
    proto = model(
        graph(
            [node("Transpose", ["W"], ["V"], perm=[1, 0]), node("MatMul", ["X", "V"], ["Y"], name="fc")],
            [value("X", ["M", K])],
            [value("Y", ["M", N]), value("V", [K, N])],
            {"W": RNG.standard_normal((N, K)).astype(np.float32)},
        )
    )
    assert_same(proto)


@pytest.mark.parametrize("other", ["W_transposed", "W_as_30x40"])
def test_a_weight_that_already_has_a_derived_name_is_not_taken_for_the_derivation(other):
    proto = model(
        graph(
            [
                node("Transpose", ["W"], ["V"], perm=[1, 0]),
                node("MatMul", ["X", "V"], ["H"], name="fc"),
                node("Reshape", ["R", "shape"], ["RV"]),
                node("MatMul", ["H", "RV"], ["P"], name="fc2"),
                node("MatMul", ["P", other], ["Y"], name="fc3"),
            ],
            [value("X", ["M", K])],
            [value("Y", ["M", N])],
            {
                "W": RNG.standard_normal((N, K)).astype(np.float32),
                "R": RNG.standard_normal(N * K).astype(np.float32),
                "shape": ints(N, K),
                other: RNG.standard_normal((K, N)).astype(np.float32),
            },
        )
    )
    assert_same(proto)


def test_a_node_output_that_already_has_a_derived_name_keeps_it():
    proto = model(
        graph(
            [
                node("Relu", ["X"], ["W_transposed"]),
                node("Transpose", ["W"], ["V"], perm=[1, 0]),
                node("MatMul", ["W_transposed", "V"], ["Y"], name="fc"),
            ],
            [value("X", ["M", K])],
            [value("Y", ["M", N])],
            {"W": RNG.standard_normal((N, K)).astype(np.float32)},
        )
    )
    assert_same(proto)
