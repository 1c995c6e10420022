"""Models of one packed op, with the function body that stock onnxruntime runs, and their float64 answer.

This is the contract of DESIGN.md written down a second time, on purpose: the rewriter and the kernels
are both tested against it.
"""

from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

SIGNED = {2: TensorProto.INT2, 4: TensorProto.INT4, 8: TensorProto.INT8}
UNSIGNED = {2: TensorProto.UINT2, 4: TensorProto.UINT4, 8: TensorProto.UINT8}


@dataclass(frozen=True)
class Weight:
    """W = (codes - zero_points) * scales, in blocks along K. Arrays as in the file of a plain op."""

    codes: np.ndarray  # int [K, N]; signed unless zero_points are given
    scales: np.ndarray  # float16 or float32 [ceil(K / block), N]
    zero_points: np.ndarray | None  # int [ceil(K / block), N]
    bits: int
    block: int

    def dequantized(self) -> np.ndarray:
        """float64 [K, N]."""
        rows = np.arange(self.codes.shape[0]) // self.block
        zero = 0 if self.zero_points is None else self.zero_points[rows].astype(np.float64)
        return (self.codes - zero) * self.scales.astype(np.float64)[rows]


def random_weight(rng, k: int, n: int, *, bits=4, block=32, zero_points=False, scales=np.float16) -> Weight:
    """Codes over their whole range, scales within a factor of four of each other."""
    low = 0 if zero_points else -(1 << (bits - 1))
    shape = (-(-k // block), n)
    return Weight(
        codes=rng.integers(low, low + (1 << bits), (k, n)),
        scales=(rng.uniform(0.25, 1.0, shape) / (1 << bits)).astype(scales),
        zero_points=rng.integers(0, 1 << bits, shape) if zero_points else None,
        bits=bits,
        block=block,
    )


def op_name(weight: Weight, transposed: bool) -> str:
    return f"PackedMatMul{'Transposed' * transposed}{'ZeroPoint' * (weight.zero_points is not None)}"


def _bytes(values: np.ndarray, bits: int) -> bytes:
    """ONNX's order: row-major over the whole tensor, the first value in the lowest bits of a byte."""
    flat = values.ravel().astype(np.uint8) & ((1 << bits) - 1)
    per_byte = 8 // bits
    flat = np.concatenate([flat, np.zeros(-flat.size % per_byte, np.uint8)])
    return sum(flat[place::per_byte] << (bits * place) for place in range(per_byte)).astype(np.uint8).tobytes()


def _initializers(weight: Weight, transposed: bool) -> list[onnx.TensorProto]:
    element = (SIGNED if weight.zero_points is None else UNSIGNED)[weight.bits]

    def packed(name, values):
        values = values.T if transposed else values
        return helper.make_tensor(name, element, values.shape, _bytes(values, weight.bits), raw=True)

    scales = np.ascontiguousarray(weight.scales.T if transposed else weight.scales)
    tensors = [packed("B", weight.codes), numpy_helper.from_array(scales, "scales")]
    if weight.zero_points is not None:
        tensors.append(packed("zero_points", weight.zero_points))
    return tensors


def _reference(node: onnx.NodeProto, attribute: str) -> None:
    reference = onnx.AttributeProto(name=attribute, ref_attr_name=attribute, type=onnx.AttributeProto.INT)
    node.attribute.append(reference)


def _matmul_function(weight: Weight, transposed: bool, opset: int) -> onnx.FunctionProto:
    inputs = ["A", "B", "scales"] + ["zero_points"] * (weight.zero_points is not None)
    nodes = []
    constants = inputs[1:]
    if transposed:
        nodes = [helper.make_node("Transpose", [x], [f"{x}_t"], perm=[1, 0]) for x in constants]
        constants = [f"{x}_t" for x in constants]
    nodes.append(helper.make_node("CastLike", [constants[1], "A"], ["cast_scales"]))
    dequantize = helper.make_node("DequantizeLinear", [constants[0], "cast_scales", *constants[2:]], ["W"], axis=0)
    _reference(dequantize, "block_size")
    nodes += [dequantize, helper.make_node("MatMul", ["A", "W"], ["Y"])]
    return helper.make_function(
        "onnxq", op_name(weight, transposed), inputs, ["Y"], nodes, [helper.make_opsetid("", opset)],
        attributes=["block_size"], attribute_protos=[helper.make_attribute("compute", "int8")],
    )  # fmt: skip


def matmul_model(weight: Weight, *, transposed=False, a=TensorProto.FLOAT, rank=2, compute="int8", **edit) -> bytes:
    """A model of one node "/fc". `edit` replaces parts of it, to make malformed ones:
    attributes={...} or initializers=[...]."""
    opset = 25 if weight.bits == 2 else 21
    k, n = weight.codes.shape
    tensors = edit.get("initializers") or _initializers(weight, transposed)
    attributes = {"block_size": weight.block, "compute": compute} | edit.get("attributes", {})
    attributes = {name: value for name, value in attributes.items() if value is not None}
    node = helper.make_node(
        op_name(weight, transposed),
        ["A", *[t.name for t in tensors]],
        ["Y"],
        domain="onnxq",
        name="/fc",
        **attributes,
    )
    batch = [f"d{i}" for i in range(rank - 1)]
    graph = helper.make_graph(
        [node], "one_node",
        [helper.make_tensor_value_info("A", a, [*batch, k])],
        [helper.make_tensor_value_info("Y", a, [*batch, n])],
        tensors,
    )  # fmt: skip
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("onnxq", 1)],
        functions=[_matmul_function(weight, transposed, opset)],
        ir_version=13 if opset == 25 else 10,
    )
    return model.SerializeToString()


def gather_model(table: Weight, *, to=TensorProto.FLOAT, indices=TensorProto.INT64, rank=1) -> bytes:
    """A model of one PackedGather node over `table`, whose codes are [V, K] here (blocks along K)."""
    zero = table.zero_points is not None
    opset = 25 if table.bits == 2 else 21
    name = f"PackedGather{'Float16' * (to == TensorProto.FLOAT16)}{'ZeroPoint' * zero}"
    inputs = ["data", "indices", "scales"] + ["zero_points"] * zero
    wide = TensorProto.UINT8 if zero else TensorProto.INT8
    nodes, rows = [], {}
    for x in [inputs[0], *inputs[3:]]:
        nodes.append(helper.make_node("Cast", [x], [f"{x}_wide"], to=wide))
        nodes.append(helper.make_node("Gather", [f"{x}_wide", "indices"], [f"{x}_rows"], axis=0))
    nodes.append(helper.make_node("Gather", ["scales", "indices"], ["scale_rows"], axis=0))
    nodes.append(helper.make_node("Cast", ["scale_rows"], ["cast_scales"], to=to))
    rows = ["data_rows", "cast_scales"] + ["zero_points_rows"] * zero
    dequantize = helper.make_node("DequantizeLinear", rows, ["Y"], axis=-1)
    _reference(dequantize, "block_size")
    function = helper.make_function(
        "onnxq",
        name,
        inputs,
        ["Y"],
        [*nodes, dequantize],
        [helper.make_opsetid("", opset)],
        attributes=["block_size"],
    )
    tensors = _initializers(table, transposed=False)
    tensors[0].name = "data"
    node = helper.make_node(
        name, ["data", "indices", *[t.name for t in tensors[1:]]], ["Y"], domain="onnxq", name="/embed",
        block_size=table.block,
    )  # fmt: skip
    batch = [f"d{i}" for i in range(rank)]
    graph = helper.make_graph(
        [node], "one_node",
        [helper.make_tensor_value_info("indices", indices, batch)],
        [helper.make_tensor_value_info("Y", to, [*batch, table.codes.shape[1]])],
        tensors,
    )  # fmt: skip
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("onnxq", 1)]
    ir_version = 13 if opset == 25 else 10
    return helper.make_model(
        graph, opset_imports=imports, functions=[function], ir_version=ir_version
    ).SerializeToString()


def session(model: bytes, library: str | None, *, threads=1, config=None) -> ort.InferenceSession:
    """A CPU session, with our library or (None) as stock onnxruntime."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    for key, value in (config or {}).items():
        options.add_session_config_entry(key, value)
    if library:
        options.register_custom_ops_library(library)
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run(model: bytes, library: str | None, a: np.ndarray, **how) -> np.ndarray:
    return session(model, library, **how).run(None, {"A": a})[0]


def relative_error(actual: np.ndarray, expected: np.ndarray) -> float:
    """L2 norm of the difference over the L2 norm of what was expected."""
    expected = expected.astype(np.float64)
    return float(np.linalg.norm(actual.astype(np.float64) - expected) / max(np.linalg.norm(expected), 1e-30))
