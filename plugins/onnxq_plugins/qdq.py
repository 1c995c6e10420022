"""qdq: weights as integers behind DequantizeLinear, in the shape that onnxruntime fuses into integer kernels.

1. Conv: DQ(W int8, axis 0), DQ(b int32) -> Conv.
2. MatMul with a bias, over two dims: DQ(W int8, axis 1), DQ(b int32) -> Gemm.
3. MatMul: DQ(W int8, axis 1) -> MatMul.

The activations around them are quantized by onnxq itself, since their scales are shared between nodes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxq.affine import QuantizedWeight
from onnxq.plugin.contracts import Format, Placement, Replacement, StoredWeight
from onnxq.plugin.hookspecs import hookimpl
from onnxq.scheme import Scheme
from onnxq.survey import Site

__all__ = ["QuantizeDequantize", "onnxq_formats"]


class QuantizeDequantize:
    """Standard Q/DQ around weights; any runtime that knows them can fuse it."""

    name = "qdq"

    def refuses(self, site: Site, scheme: Scheme) -> str | None:
        """8 bits, one scale per output channel or one in all; only weights that are multiplied by."""
        if site.kind not in ("conv", "matmul"):
            return "a table that is read by rows multiplies nothing; write it with --format packed"
        if scheme.bits != 8 or scheme.granularity == "blocked":
            return f"integer kernels take 8-bit weights per channel or per tensor, not {scheme}"
        if not scheme.symmetric and scheme.granularity == "per_axis":
            return "onnxruntime's integer kernels want one zero point for all channels; use symmetric weights"
        return None

    def store(self, site: Site, weight: QuantizedWeight) -> StoredWeight:
        """Codes in the filters' own shape for convolutions, [K, N] for matmuls; scales [N] or a single number."""
        codes = weight.codes.T.reshape(site.shape) if site.kind == "conv" else weight.codes
        shape = () if weight.scheme.granularity == "per_tensor" else (-1,)
        # Zero points are written even where all are zero: without them onnxruntime 1.31 fuses no QGemm.
        zero_points = np.zeros_like(weight.scales, np.int8) if weight.zero_points is None else weight.zero_points
        tensors = {
            "codes": _tensor(np.ascontiguousarray(codes), weight.scheme.dtype),
            "scales": _tensor(weight.scales.reshape(shape), ir.DataType.FLOAT),
            "zero_points": _tensor(zero_points.reshape(shape), weight.scheme.dtype),
        }
        return StoredWeight(tensors)

    def place(self, placement: Placement) -> Replacement:
        """DequantizeLinear in front of the original operator, or of Gemm where a bias comes with a MatMul."""
        site, given = placement.site, placement.weight
        axis = 0 if site.kind == "conv" else 1
        operands = [given[role] for role in ("codes", "scales", "zero_points") if role in given]
        dequantize = ir.node("DequantizeLinear", operands, attributes={"axis": axis})
        nodes = [dequantize]
        inputs = [placement.inputs[0], dequantize.outputs[0]]
        if "bias" in given:
            nodes.append(ir.node("DequantizeLinear", [given["bias"], given["bias_scales"]], attributes={"axis": 0}))
            inputs.append(nodes[-1].outputs[0])
        op_type = "Gemm" if site.op_type == "MatMul" and "bias" in given else site.op_type
        nodes.append(ir.node(op_type, inputs, attributes=dict(placement.attributes)))
        return Replacement(nodes)

    def kernel(self, site: Site, scheme: Scheme) -> str:
        """What it runs as when its activations are codes too."""
        return "QLinearConv" if site.kind == "conv" else "MatMulIntegerToFloat"

    def resident_bits(self, site: Site, scheme: Scheme) -> float:
        """Codes stay as they are; MLAS packs them once, in the same size."""
        return 8 + (32 / site.k if scheme.granularity == "per_axis" else 0)


def _tensor(values: npt.NDArray[np.generic], dtype: ir.DataType) -> ir.TensorProtocol:
    return ir.Tensor(values.astype(dtype.numpy()), dtype=dtype)


@hookimpl
def onnxq_formats() -> Sequence[Format]:
    """Provide qdq."""
    return [QuantizeDequantize()]
