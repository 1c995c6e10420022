"""Weights of 3, 5 and 6 bits: two planes of bytes behind PackedMatMulBits3 and its like. Part of the packed format.

Stock onnxruntime unpacks the planes once, at load, into its 8-bit MatMulNBits; onnxq's kernels keep them packed.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxq import ops, plane_ops
from onnxq.affine import QuantizedWeight
from onnxq.planes import split_codes
from onnxq.plugin.contracts import Placement, Replacement, StoredWeight
from onnxq.scheme import Scheme

__all__ = ["in_planes", "place_planes", "store_planes"]


def in_planes(scheme: Scheme) -> bool:
    """Is this a width that ONNX has no type for?"""
    return scheme.bits in (3, 5, 6)


def store_planes(weight: QuantizedWeight) -> StoredWeight:
    """Planes `low` and `high`, scales, zero points (a byte each); signed codes are stored with the middle as zero."""
    codes = weight.codes.astype(np.int16)
    if weight.scheme.symmetric:
        codes = codes + (1 << (weight.scheme.bits - 1))
    planes = split_codes(codes.astype(np.uint8), weight.scheme.bits)
    tensors: dict[str, ir.TensorProtocol] = {role: ir.Tensor(plane) for role, plane in planes.items()}
    tensors["scales"] = ir.Tensor(weight.scales.astype(weight.scheme.scale_dtype))
    if weight.zero_points is not None:
        tensors["zero_points"] = ir.Tensor(weight.zero_points)
    return StoredWeight(tensors)


def place_planes(placement: Placement) -> Replacement:
    """One packed node and its function."""
    scheme, zero_points = placement.scheme, "zero_points" in placement.weight
    roles = ("low", "high", "scales", "zero_points")
    node = ir.node(
        plane_ops.plane_op_name(scheme.bits, zero_points=zero_points),
        [placement.inputs[0], *(placement.weight[role] for role in roles if role in placement.weight)],
        domain=ops.DOMAIN,
        attributes={"block_size": scheme.block_size, "compute": placement.compute, "rows": placement.site.k},
    )
    function = plane_ops.plane_matmul(scheme.bits, zero_points=zero_points, opset=placement.opset)
    return Replacement([node], [function])
