"""CUDA: what a conversion with --target cuda decides otherwise than one for a CPU.

1. Weight-only: onnxruntime's CUDA provider has no integer kernels for Q/DQ, so nothing runs on codes. Matmuls and
   tables are packed; convolutions stay float, and the reason says so.
2. Block sizes that the kernels like, where the user gave none: see `block_size_for`.
3. Kernels are predicted for CUDA. What has none there is named.
"""

from __future__ import annotations

from collections.abc import Iterable

from onnxq.unheeded import Decided

__all__ = ["ON_CUDA", "WHY_CONVOLUTIONS_STAY_FLOAT", "about_cuda", "block_size_for"]

ON_CUDA = " on CUDA"
"""Behind the name of an operator that the CUDA provider runs."""

WHY_CONVOLUTIONS_STAY_FLOAT = (
    "onnxruntime's CUDA provider has no integer convolutions; --format packed stores it as int8, which saves disk only"
)

_LIKED = (128, 64, 32)
"""Blocks from the cheapest on: with zero points the decode kernel handles 17.6, 16.4 and 13.3 weights an instruction at
4 bits and fp16 (kernels/cuda/README.md), 10.3 with blocks of 16. Blocks of 256 run as two of 128."""


def block_size_for(k: int) -> int:
    """The block size for a weight of K rows: the cheapest that divides K, so that no block is partly padding.

    Where none divides it, 32: its last block pads least of those that are not slow.
    """
    return next((size for size in _LIKED if k % size == 0), _LIKED[-1])


def about_cuda(decisions: Iterable[Decided], *, trained: bool) -> list[str]:
    """What a user may have expected of CUDA and does not get.

    Args:
        decisions: all of a plan.
        trained: the model brought scales from quantization-aware training.
    """
    warnings = []
    schemes = {(decision.format, decision.scheme) for decision in decisions}
    if any(form == "packed" and scheme.bits == 2 for form, scheme in schemes):
        warnings.append(
            "2-bit weights on CUDA are for onnxq's library: MatMulNBits of onnxruntime's own CUDA provider is known to "
            "take 4 and 8 bits"
        )
    if trained:
        warnings.append(
            "the ranges and scales that the model was trained with are for integer kernels, which CUDA has not; "
            "they are left out"
        )
    return warnings
