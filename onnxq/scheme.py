"""Scheme: how the numbers of one weight are represented. A plain value, no behaviour beyond its own arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import onnx_ir as ir

from onnxq.errors import RecipeError

__all__ = ["BITS", "BLOCK_SIZES", "TABLE_BITS", "Granularity", "NumberFormat", "Scheme"]

BITS = (2, 3, 4, 5, 6, 8)
"""Widths of weights. 3, 5 and 6 have no ONNX type and are stored in planes of bytes (kernels/LAYOUTS.md)."""

TABLE_BITS = (2, 4, 8)
"""Widths of tables: those with an ONNX integer type (opset 21; 2 bits: opset 25)."""

BLOCK_SIZES = (16, 32, 64, 128, 256)
"""What onnxruntime's CPU MatMulNBits takes (a power of two, 16..256)."""

Granularity = Literal["per_tensor", "per_axis", "blocked"]


class NumberFormat(Protocol):
    """The codes that a range will be spread over. Every Scheme is one."""

    @property
    def qmin(self) -> int:
        """Lowest code."""
        ...

    @property
    def qmax(self) -> int:
        """Highest code."""
        ...

    @property
    def symmetric(self) -> bool:
        """The zero point is 0 (signed codes); otherwise any code may stand for zero."""
        ...


@dataclass(frozen=True, slots=True)
class Scheme:
    """The number format of one quantized weight.

    `q = saturate(round_half_even(x / scale) + zero_point)`; a signed type is symmetric and has no zero point.

    Attributes:
        bits: 2, 3, 4, 5, 6 or 8.
        symmetric: signed codes without zero points; otherwise unsigned codes with integer zero points.
        granularity: what shares one scale: `blocked` (block_size elements along K), `per_axis`
            (one output channel) or `per_tensor`.
        block_size: elements along K that share a scale; 0 unless `blocked`.
        scale_type: ONNX float type in which scales are stored: FLOAT16, or FLOAT for integer kernels and for weights
            whose scales float16 cannot hold.
        reduced: signed codes keep to half of their range, so that a sum of two products with uint8 activations fits
            16 bits: x86 without VNNI adds them there and saturates.
        codebook: codes are indices into a codebook that comes with the weight; they have no zero points.
    """

    bits: int
    symmetric: bool
    granularity: Granularity = "blocked"
    block_size: int = 0
    scale_type: Literal["FLOAT16", "FLOAT"] = "FLOAT16"
    reduced: bool = False
    codebook: bool = False

    def __post_init__(self) -> None:
        if self.bits not in BITS:
            raise RecipeError(f"bits={self.bits} is not a width that can be stored; use one of {_listed(BITS)}")
        if self.granularity == "blocked" and self.block_size not in BLOCK_SIZES:
            raise RecipeError(
                f"block_size={self.block_size} is not one that onnxruntime's kernels take; "
                f"use one of {_listed(BLOCK_SIZES)}"
            )

    @property
    def qmin(self) -> int:
        """Lowest code. The full two's complement range: at 2 bits, dropping -2 would cost a quarter of it."""
        return -(1 << (self._used_bits - 1)) if self._signed else 0

    @property
    def qmax(self) -> int:
        """Highest code."""
        return (1 << (self._used_bits - 1)) - 1 if self._signed else (1 << self._used_bits) - 1

    @property
    def _signed(self) -> bool:
        return self.symmetric and not self.codebook

    @property
    def _used_bits(self) -> int:
        return self.bits - 1 if self.reduced else self.bits

    @property
    def scale_dtype(self) -> np.dtype[np.floating]:
        """numpy type of stored scales."""
        return np.dtype(np.float16 if self.scale_type == "FLOAT16" else np.float32)

    @property
    def dtype(self) -> ir.DataType:
        """The ONNX type of codes and zero points; UINT8 (planes of bytes) for widths without one."""
        if self.codebook or self.bits not in TABLE_BITS:
            return ir.DataType.UINT8
        return ir.DataType[f"{'INT' if self.symmetric else 'UINT'}{self.bits}"]

    @property
    def opset(self) -> int:
        """Lowest default-domain opset whose DequantizeLinear knows this scheme."""
        if self.bits == 2:
            return 25
        return 21 if self.bits == 4 or self.granularity == "blocked" else 13

    def bits_per_weight(self, k: int, *, scale_bits: int = 16) -> float:
        """Stored bits per weight of a [K, N] weight, scales and zero points counted.

        Args:
            k: K, the length of the reduction axis (a ragged last block still stores a whole scale).
            scale_bits: bits of one stored scale.
        """
        if self.granularity != "blocked":
            return self.bits + scale_bits / k
        blocks = -(-k // self.block_size)
        zero_point_bits = 0 if self.symmetric else self.bits if self.bits in TABLE_BITS else 8
        return self.bits + blocks * (scale_bits + zero_point_bits) / k

    def __str__(self) -> str:
        kind = "codebook" if self.codebook else "int" if self.symmetric else "uint"
        where = f"block {self.block_size}" if self.granularity == "blocked" else self.granularity.replace("_", " ")
        return f"{kind}{self.bits} {where}{' reduced' if self.reduced else ''}"


def _listed(values: tuple[int, ...]) -> str:
    return ", ".join(map(str, values))
