"""packed: weights as low-bit tensors inside `onnxq` functions that every runtime understands.

1. A blocked matmul weight: PackedMatMul (or ..ZeroPoint) over B [K, N].
2. A head that shares its table with a Gather: PackedMatMulTransposed over the table's own [V, K].
3. An embedding table: PackedGather over [V, K], one row quantized along K.
4. One scale per output channel: a plain DequantizeLinear in front of the MatMul (onnxruntime re-blocks it to 32).
5. Widths without an ONNX type (3, 5, 6): two planes of bytes behind PackedMatMulBits3 and its like; see planes.py.
6. A convolution: a plain int8 DequantizeLinear per output channel in front of the Conv. It saves space only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxq import ops
from onnxq.affine import QuantizedWeight
from onnxq.plugin.contracts import Format, Placement, Replacement, StoredWeight
from onnxq.plugin.hookspecs import hookimpl
from onnxq.scheme import Scheme
from onnxq.survey import Site
from onnxq_plugins.planes import in_planes, place_planes, store_planes

__all__ = ["Packed", "onnxq_formats"]


class Packed:
    """Packed functions for matmuls and tables; plain per-channel DequantizeLinear elsewhere."""

    name = "packed"

    def refuses(self, site: Site, scheme: Scheme) -> str | None:
        """Tables need blocks (their rows are read one by one); convolutions need one scale per channel."""
        if scheme.codebook:
            return f"{scheme} belongs to the format codebook"
        if in_planes(scheme) and (site.kind != "matmul" or scheme.granularity != "blocked"):
            return f"{scheme.bits} bits are packed for matmuls in blocks only, not for {site.kind} weights, {scheme}"
        if site.kind in ("gather", "matmul_transposed") and scheme.granularity != "blocked":
            return f"a table is packed in blocks, not {scheme}; give it a --block-size of its own by --override"
        if site.kind == "conv" and (scheme.granularity != "per_axis" or scheme.bits != 8):
            return f"convolution weights are packed as int8 per channel, not {scheme}"
        if scheme.bits == 2 and site.kind == "matmul" and site.n % 4:
            # onnxruntime 1.31 reads such a tensor's rows from the wrong place, without a word
            return f"2-bit weights need N divisible by 4, this one has N={site.n}"
        return None

    def store(self, site: Site, weight: QuantizedWeight) -> StoredWeight:
        """Tensors in file layout: [K, N] for matmuls, [V, K] for tables, the filters' own shape for convolutions."""
        if in_planes(weight.scheme):
            return store_planes(weight)
        dtype = weight.scheme.dtype
        by_row = site.kind != "matmul"
        codes = np.ascontiguousarray(weight.codes.T if by_row else weight.codes)
        scales = np.ascontiguousarray(weight.scales.T if by_row else weight.scales)
        zero_points = weight.zero_points
        if zero_points is not None and by_row:
            zero_points = np.ascontiguousarray(zero_points.T)
        if weight.scheme.granularity != "blocked":
            scales = scales.reshape(-1)
            zero_points = None if zero_points is None else zero_points.reshape(-1)
        blocked = weight.scheme.granularity == "blocked"
        scale_type = ir.DataType[weight.scheme.scale_type if blocked else site.dtype]
        if site.shape and site.kind == "conv":
            codes = codes.reshape(site.shape)
        tensors = {"codes": _tensor(codes, dtype), "scales": _tensor(scales, scale_type)}
        if zero_points is not None:
            tensors["zero_points"] = _tensor(zero_points, dtype)
        return StoredWeight(tensors)

    def place(self, placement: Placement) -> Replacement:
        """Cases 1-3 and 5 as one packed node, 4 and 6 as DequantizeLinear in front of the original operator."""
        if in_planes(placement.scheme):
            return place_planes(placement)
        if placement.scheme.granularity != "blocked":
            return _dequantized(placement)
        zero_points = "zero_points" in placement.weight
        weight = [placement.weight[role] for role in ("codes", "scales", "zero_points") if role in placement.weight]
        kind = placement.site.kind
        if kind == "gather":
            return _gather(placement, weight, zero_points=zero_points)
        node = ir.node(
            ops.packed_op_name(kind, zero_points=zero_points),
            [placement.inputs[0], *weight],
            domain=ops.DOMAIN,
            attributes={"block_size": placement.scheme.block_size, "compute": placement.compute},
        )
        transposed = kind == "matmul_transposed"
        function = ops.packed_matmul(
            transposed=transposed,
            zero_points=zero_points,
            opset=placement.opset,
            widen=transposed and placement.scheme.bits == 2,
        )
        return Replacement([node], [function])

    def kernel(self, site: Site, scheme: Scheme) -> str:
        """MatMulNBits for every matmul; a table is gathered and dequantized; a Conv gets its weight unpacked."""
        return {"gather": "DequantizeLinear", "conv": "Conv"}.get(site.kind, "MatMulNBits")

    def resident_bits(self, site: Site, scheme: Scheme) -> float:
        """What constant folding leaves: float32 scales beside packed codes, tables widened to bytes.

        A Conv's weight is unpacked to float; a per-channel matmul is re-blocked to 32.
        """
        if site.kind == "conv":
            return 8.0 * ir.DataType[site.dtype].itemsize
        if scheme.granularity != "blocked":
            return scheme.bits + 32 / 32 + scheme.bits / 32
        blocks = -(-site.k // scheme.block_size) / site.k
        if site.kind == "gather":
            return 8 + blocks * (8 * scheme.scale_dtype.itemsize + (0 if scheme.symmetric else 8))
        if in_planes(scheme):
            return 8 + blocks * (32 + 8)
        bits = 8 if site.kind == "matmul_transposed" and scheme.bits == 2 else scheme.bits
        return bits + blocks * (32 + (0 if scheme.symmetric else bits))


def _tensor(values: npt.NDArray[np.generic], dtype: ir.DataType) -> ir.TensorProtocol:
    return ir.Tensor(values.astype(dtype.numpy()), dtype=dtype)


def _gather(placement: Placement, weight: Sequence[ir.Value], *, zero_points: bool) -> Replacement:
    """A packed gather; bfloat16 rows are float32 rows behind a Cast."""
    half = placement.dtype == ir.DataType.FLOAT16
    node = ir.node(
        ops.packed_op_name("gather", zero_points=zero_points, half=half),
        [weight[0], placement.inputs[0], *weight[1:]],
        domain=ops.DOMAIN,
        attributes={"block_size": placement.scheme.block_size},
    )
    function = ops.packed_gather(zero_points=zero_points, half=half, opset=placement.opset)
    if placement.dtype != ir.DataType.BFLOAT16:
        return Replacement([node], [function])
    cast = ir.node("Cast", [node.outputs[0]], attributes={"to": int(placement.dtype)})
    return Replacement([node, cast], [function])


def _dequantized(placement: Placement) -> Replacement:
    """DequantizeLinear -> the original operator; scales are stored in the model's own float type."""
    weight = placement.weight
    operands = [weight[role] for role in ("codes", "scales", "zero_points") if role in weight]
    axis = 0 if placement.site.kind == "conv" else 1
    dequantize = ir.node("DequantizeLinear", operands, attributes={"axis": axis})
    activation, *rest = placement.inputs
    node = ir.node(
        placement.site.op_type, [activation, dequantize.outputs[0], *rest], attributes=dict(placement.attributes)
    )
    return Replacement([dequantize, node])


@hookimpl
def onnxq_formats() -> Sequence[Format]:
    """Provide packed."""
    return [Packed()]
