"""matmulnbits: weights inside onnxruntime's own operator com.microsoft::MatMulNBits, written directly.

For versions of onnxruntime that do not yet fuse DequantizeLinear and MatMul into it: nothing here needs an opset above
the model's own. `accuracy_level` is always 4 (int8 activations): without it onnxruntime runs a slow float path.

Layout, per output channel n: its blocks along K one after the other, a block's codes packed into bytes, the first code
in the lowest bits; the last block is padded with codes of 0 that meet no activation. Zero points are packed the same
way along the blocks. Signed codes are stored with 2^(bits-1) added: the operator's zero point when none is given.
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

__all__ = ["MatMulNBits", "onnxq_formats"]

_WIDTHS = (2, 4, 8)
_ACCURACY_LEVEL = 4

_SLOW_TWO_BIT_BLOCKS = (16, 256)
"""With these, onnxruntime 1.31's CPU kernel for 2 bits is 15 times slower than float32 and worse."""


class MatMulNBits:
    """One MatMulNBits node per matmul; everything else stays float."""

    name = "matmulnbits"

    def refuses(self, site: Site, scheme: Scheme) -> str | None:
        """Only matmuls, in blocks, of the widths that the operator has fast kernels for."""
        if site.kind != "matmul":
            return "MatMulNBits only multiplies by a matrix of its own; --format packed takes tables and convolutions"
        if scheme.codebook or scheme.bits not in _WIDTHS:
            return f"MatMulNBits takes 2, 4 and 8 bits, not {scheme}"
        if scheme.granularity != "blocked":
            return f"MatMulNBits takes blocks, not {scheme}; give a --block-size of 16 to 256"
        if scheme.bits == 2 and scheme.block_size in _SLOW_TWO_BIT_BLOCKS:
            return f"onnxruntime's 2-bit kernel is slower than float with blocks of {scheme.block_size}"
        if site.dtype not in ("FLOAT", "FLOAT16"):
            return f"MatMulNBits takes float32 and float16 activations, not {site.dtype}; use --format packed"
        return None

    def store(self, site: Site, weight: QuantizedWeight) -> StoredWeight:
        """B uint8 [N, blocks, block_size * bits / 8], scales [N, blocks] in the activations' type, zero points."""
        scheme = weight.scheme
        codes = weight.codes.astype(np.int16)
        if scheme.symmetric:
            codes += 1 << (scheme.bits - 1)
        blocks = -(-site.k // scheme.block_size)
        padded = np.zeros((site.n, blocks * scheme.block_size), np.uint8)
        padded[:, : site.k] = codes.T
        packed = _packed(padded, scheme.bits).reshape(site.n, blocks, -1)
        scales = np.ascontiguousarray(weight.scales.T)  # [N, blocks]
        dtype = ir.DataType[site.dtype]
        tensors: dict[str, ir.TensorProtocol] = {
            "codes": ir.Tensor(packed),
            "scales": ir.Tensor(scales.astype(dtype.numpy()), dtype=dtype),
        }
        if weight.zero_points is not None:
            tensors["zero_points"] = ir.Tensor(_packed(np.ascontiguousarray(weight.zero_points.T), scheme.bits))
        return StoredWeight(tensors)

    def place(self, placement: Placement) -> Replacement:
        """The one node; the rewriter imports its domain."""
        site, scheme, weight = placement.site, placement.scheme, placement.weight
        attributes = {
            "K": site.k,
            "N": site.n,
            "bits": scheme.bits,
            "block_size": scheme.block_size,
            "accuracy_level": _ACCURACY_LEVEL,
        }
        operands = [weight[role] for role in ("codes", "scales", "zero_points") if role in weight]
        inputs = [placement.inputs[0], *operands]
        return Replacement([ir.node("MatMulNBits", inputs, domain="com.microsoft", version=1, attributes=attributes)])

    def kernel(self, site: Site, scheme: Scheme) -> str:
        """Itself."""
        return "MatMulNBits"

    def resident_bits(self, site: Site, scheme: Scheme) -> float:
        """Packed codes, float32 scales, packed zero points."""
        blocks = -(-site.k // scheme.block_size) / site.k
        return scheme.bits + blocks * (32 + (0 if scheme.symmetric else scheme.bits))


def _packed(codes: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.uint8]:
    """uint8 [N, M] -> uint8 [N, ceil(M * bits / 8)]: several codes a byte, the first in the lowest bits."""
    per_byte = 8 // bits
    n, m = codes.shape
    wide = np.zeros((n, -(-m // per_byte) * per_byte), np.uint8)
    wide[:, :m] = codes
    groups = wide.reshape(n, -1, per_byte)
    shifts = (bits * np.arange(per_byte)).astype(np.uint8)
    return np.asarray(np.bitwise_or.reduce(groups << shifts, axis=2), np.uint8)


@hookimpl
def onnxq_formats() -> Sequence[Format]:
    """Provide matmulnbits."""
    return [MatMulNBits()]
