"""The same weight as three models: our packed op, onnxruntime's MatMulNBits (or MatMulBnb4), and float32."""

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

SIGNED = {2: TensorProto.INT2, 4: TensorProto.INT4, 8: TensorProto.INT8}


@dataclass(frozen=True)
class Problem:
    """W [k, n] in symmetric codes of `bits`, blocks along K; bits 0 is NF4."""

    k: int
    n: int
    bits: int
    block: int

    @property
    def name(self) -> str:
        return f"{self.k}x{self.n} {'nf4' if self.bits == 0 else f'{self.bits}-bit'}/{self.block}"

    @property
    def packed_bytes(self) -> int:
        """Codes and float16 scales: what one pass over the weight must read."""
        return self.k * self.n * (self.bits or 4) // 8 + -(-self.k // self.block) * self.n * 2


def _fields(codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Packs the last axis, low bits first; its length is a multiple of the codes of a byte."""
    parts = codes.reshape(*codes.shape[:-1], -1, 8 // bits)
    packed = np.zeros(parts.shape[:-1], np.uint8)
    for j in range(8 // bits):
        packed |= parts[..., j] << (j * bits)
    return packed


def _plane(codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """A plane as kernels/LAYOUTS.md defines it; K divides by the codes of a byte here."""
    parts = codes.reshape(8 // bits, -1, codes.shape[1])
    packed = np.zeros(parts.shape[1:], np.uint8)
    for j in range(8 // bits):
        packed |= parts[j] << (j * bits)
    return packed


def _model(node: onnx.NodeProto, problem: Problem, tensors: list[onnx.TensorProto]) -> bytes:
    graph = helper.make_graph(
        [node], "one_node",
        [helper.make_tensor_value_info("A", TensorProto.FLOAT, ["m", problem.k])],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, ["m", problem.n])],
        tensors,
    )  # fmt: skip
    imports = [helper.make_opsetid(d, v) for d, v in (("", 21), ("onnxq", 1), ("com.microsoft", 1))]
    return bytes(helper.make_model(graph, opset_imports=imports, ir_version=10).SerializeToString())


class Weight:
    """Random codes 0 .. 2^bits - 1 (zero point 2^(bits-1)) and scales."""

    def __init__(self, problem: Problem, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.problem = problem
        self.codes = rng.integers(0, 1 << (problem.bits or 4), (problem.k, problem.n), dtype=np.uint8)
        shape = (-(-problem.k // problem.block), problem.n)
        self.scales = rng.uniform(0.001, 0.004, shape).astype(np.float16)

    def ours(self) -> bytes:
        p = self.problem
        scales = numpy_helper.from_array(self.scales, "scales")
        if p.bits in SIGNED:
            raw = _fields((self.codes ^ np.uint8(1 << (p.bits - 1))).reshape(-1), p.bits).tobytes()
            tensors = [TensorProto(name="B", data_type=SIGNED[p.bits], dims=[p.k, p.n], raw_data=raw), scales]
            op, rows = "PackedMatMul", None
        elif p.bits == 0:
            book = numpy_helper.from_array(np.linspace(-1, 1, 16, dtype=np.float16)[:, None], "codebook")
            tensors = [numpy_helper.from_array(_plane(self.codes, 4), "low"), book, scales]
            op, rows = "CodebookMatMul4", p.k
        else:
            low = 2 if p.bits == 3 else 4
            planes = {
                "low": _plane(self.codes & np.uint8((1 << low) - 1), low),
                "high": _plane(self.codes >> np.uint8(low), p.bits - low),
            }
            tensors = [numpy_helper.from_array(x, name) for name, x in planes.items()] + [scales]
            op, rows = f"PackedMatMulBits{p.bits}", p.k
        inputs = ["A", *[t.name for t in tensors]]
        # make_node leaves out an attribute that is None.
        node = helper.make_node(op, inputs, ["Y"], domain="onnxq", block_size=p.block, compute="int8", rows=rows)
        return _model(node, p, tensors)

    def onnxruntime(self) -> bytes | None:
        """MatMulNBits at accuracy_level 4 (NF4: MatMulBnb4); None where it has no such width."""
        p = self.problem
        blocks = -(-p.k // p.block)
        if p.bits == 0:
            packed = _fields(self.codes.T.reshape(-1), 4)
            scales = self.scales.astype(np.float32).T.reshape(-1)
            node = helper.make_node(
                "MatMulBnb4",
                ["A", "B", "S"],
                ["Y"],
                domain="com.microsoft",
                K=p.k,
                N=p.n,
                block_size=p.block,
                quant_type=1,
            )
        elif p.bits in SIGNED:
            padded = np.zeros((p.n, blocks * p.block), np.uint8)
            padded[:, : p.k] = self.codes.T
            packed = _fields(padded.reshape(p.n, blocks, p.block), p.bits)
            scales = self.scales.astype(np.float32).T.copy()
            node = helper.make_node(
                "MatMulNBits", ["A", "B", "S"], ["Y"], domain="com.microsoft", K=p.k, N=p.n, bits=p.bits,
                block_size=p.block, accuracy_level=4,
            )  # fmt: skip
        else:
            return None
        return _model(node, p, [numpy_helper.from_array(packed, "B"), numpy_helper.from_array(scales, "S")])

    def float32(self) -> bytes:
        p = self.problem
        w = np.repeat(self.scales.astype(np.float32), p.block, axis=0)[: p.k] * (self.codes.astype(np.float32) - 8)
        return _model(helper.make_node("MatMul", ["A", "B"], ["Y"]), p, [numpy_helper.from_array(w, "B")])
