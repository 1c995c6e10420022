"""Activations: the integer type that a tensor's codes have, and the scale and zero point that a range gives it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

__all__ = ["ActivationDecision", "ActivationFormat"]


@dataclass(frozen=True, slots=True)
class ActivationFormat:
    """How the numbers of an activation are represented; one scale for the whole tensor.

    Attributes:
        bits: 8, or 16 (which onnxruntime's CPU computes in float).
        signed: int8 instead of uint8. onnxruntime on x86 turns one into the other; other runtimes may not.
        symmetric: zero is the middle code. A tensor that is never negative keeps its whole range, with zero at the
            lowest code: half of the codes would stay unused, and no Relu could be absorbed.
    """

    bits: int = 8
    signed: bool = False
    symmetric: bool = False

    @property
    def qmin(self) -> int:
        """Lowest code."""
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def qmax(self) -> int:
        """Highest code."""
        return self.qmin + (1 << self.bits) - 1

    @property
    def dtype(self) -> ir.DataType:
        """ONNX type of codes and zero point."""
        return ir.DataType[f"{'INT' if self.signed else 'UINT'}{self.bits}"]

    def quantize_range(self, low: float, high: float) -> tuple[float, int]:
        """Scale (a float32 number) and zero point for a range; zero is always representable.

        Returns:
            scale: positive; 1 for a tensor of zeros.
            zero_point: within qmin..qmax, the exact code of 0.
        """
        low, high = min(float(low), 0.0), max(float(high), 0.0)
        middle = (self.qmin + self.qmax + 1) // 2
        if self.symmetric and low < 0:
            span = max(high / (self.qmax - middle), -low / (middle - self.qmin))
        else:
            span = (high - low) / (self.qmax - self.qmin)
        scale = float(np.float32(span))
        if not scale >= float(np.finfo(np.float32).tiny):
            return 1.0, middle if self.symmetric else self.qmin
        if self.symmetric and low < 0:
            return scale, middle
        return scale, int(np.clip(np.rint(self.qmin - low / scale), self.qmin, self.qmax))

    def __str__(self) -> str:
        return self.dtype.name.lower()


@dataclass(frozen=True, slots=True)
class ActivationDecision:
    """How one tensor becomes codes.

    Attributes:
        tensor: its name in the normalised graph.
        format: type of its codes.
        scale: float32 number; x ~ (code - zero_point) * scale.
        zero_point: code of 0.
        shares_with: tensor whose scale this is, when it is not its own.
        integer: an integer node writes it; then float readers see it dequantized.
        constant: it is an initializer.
        reason: where the range comes from.
    """

    tensor: str
    format: ActivationFormat
    scale: float
    zero_point: int
    shares_with: str | None
    integer: bool
    constant: bool
    reason: str

    @property
    def range(self) -> tuple[float, float]:
        """Smallest and largest value that has a code of its own."""
        low, high = self.format.qmin - self.zero_point, self.format.qmax - self.zero_point
        return low * self.scale, high * self.scale
