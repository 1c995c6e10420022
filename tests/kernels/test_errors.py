"""A malformed node is an error that names the node and the numbers, never a crash."""

import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from packed_nodes import matmul_model, random_weight, run, session

K, N, BLOCK = 64, 24, 32


def parts(codes=(K, N), scales=(K // BLOCK, N), zero=(K // BLOCK, N)):
    """Initializers of a PackedMatMulZeroPoint whose shapes can be made to disagree."""

    def filled(name, shape):
        return helper.make_tensor(name, TensorProto.UINT4, shape, [1] * int(np.prod(shape)))

    return [
        filled("B", codes),
        numpy_helper.from_array(np.ones(scales, np.float16), "scales"),
        filled("zero_points", zero),
    ]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"initializers": parts(scales=(3, N))}, "scales has shape [3, 24], expected [2, 24]"),
        ({"initializers": parts(scales=(2, N - 1))}, "scales has shape [2, 23], expected [2, 24]"),
        ({"initializers": parts(zero=(2, N + 1))}, "zero_points has shape [2, 25], expected [2, 24]"),
        ({"initializers": parts(codes=(K * N,))}, "the weight has shape [1536], expected 2 dimensions"),
        ({"initializers": parts(codes=(0, N), scales=(0, N), zero=(0, N))}, "the weight is empty: K=0, N=24"),
        ({"attributes": {"block_size": 48}}, "block_size=48 is not a power of two from 16 to 256"),
        ({"attributes": {"block_size": 8}}, "block_size=8 is not a power of two from 16 to 256"),
        ({"attributes": {"block_size": 512}}, "block_size=512 is not a power of two from 16 to 256"),
        ({"attributes": {"block_size": -(2**62)}}, "block_size=-4611686018427387904 is not a power of two"),
        ({"attributes": {"block_size": None}}, "the attribute block_size is missing"),
        ({"attributes": {"compute": "int4"}}, "compute='int4' is not one of int8, bf16, float"),
    ],
)
def test_a_malformed_node_is_refused_at_load(library, edit, message):
    weight = random_weight(np.random.default_rng(0), K, N, zero_points=True)
    where = "onnxq PackedMatMulZeroPoint '/fc': "
    with pytest.raises(Exception, match=re.escape(where + message)):
        session(matmul_model(weight, **edit), library)


def test_a_weight_that_is_not_constant_is_refused(library):
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("PackedMatMul", ["A", "B", "s"], ["Y"], domain="onnxq", name="/fc", block_size=32)],
            "g",
            [
                helper.make_tensor_value_info("A", TensorProto.FLOAT, [1, K]),
                helper.make_tensor_value_info("B", TensorProto.INT4, [K, N]),
                helper.make_tensor_value_info("s", TensorProto.FLOAT, [2, N]),
            ],
            [helper.make_tensor_value_info("Y", TensorProto.FLOAT, [1, N])],
        ),
        opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid("onnxq", 1)],
        ir_version=10,
    )
    with pytest.raises(Exception, match=r"the weight \(input 1\) is not a constant"):
        session(model.SerializeToString(), library)


@pytest.mark.parametrize("shape", [(1, K - 1), (1, K + 1), (K, 1)])
def test_a_of_the_wrong_depth_is_refused_at_run_time(library, shape):
    weight = random_weight(np.random.default_rng(0), K, N)
    proto = onnx.load_from_string(matmul_model(weight))
    proto.graph.input[0].CopyFrom(helper.make_tensor_value_info("A", TensorProto.FLOAT, ["m", "k"]))
    with pytest.raises(Exception, match=re.escape(f"A has shape [{shape[0]}, {shape[1]}], expected [.., {K}]")):
        run(proto.SerializeToString(), library, np.zeros(shape, np.float32))
