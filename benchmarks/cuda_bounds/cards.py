"""Published figures of the cards, from the vendors' data sheets, and published times of other kernels."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Card:
    """Data-sheet values at boost clock."""

    name: str
    multiprocessors: int
    clock: float  # Hz
    bandwidth: float  # bytes / s
    # Dense fp16 multiply-adds per clock and multiprocessor through mma.sync with float32 sums.
    tensor_rate: int


# Tensor rates: A100 312, L4 121 and RTX 4090 165 TFLOPS dense with fp32 sums, divided by clock and multiprocessors.
# H100 and B200 reach their data sheets' rates only with wgmma and tcgen05; mma.sync is taken at A100's rate per
# clock times two and at the same for B200, which is an assumption.
CARDS = (
    Card("A100-80", 108, 1.41e9, 2.039e12, 1024),
    Card("H100-SXM", 132, 1.755e9, 3.35e12, 2048),
    Card("L4", 58, 2.04e9, 0.300e12, 512),
    Card("RTX 4090", 128, 2.52e9, 1.008e12, 256),
    Card("B200", 148, 1.85e9, 8.0e12, 2048),
)


@dataclass(frozen=True, slots=True)
class Shape:
    name: str
    k: int
    n: int
    # Microseconds of onnxruntime's MatMulNBits on an A100, fp16, block 32, by tokens (its pull request 29451).
    matmulnbits: dict[int, float]


SHAPES = (
    Shape("qkv 4096x4096", 4096, 4096, {1: 25.4, 2: 30.1, 4: 32.3, 8: 43.2, 16: 70.0}),
    Shape("gate_up 4096x12288", 4096, 12288, {1: 37.5, 2: 43.5, 4: 49.5, 8: 71.9, 16: 125.9}),
    Shape("down 12288x4096", 12288, 4096, {1: 37.9, 2: 47.4, 4: 52.9, 8: 76.8, 16: 150.1}),
    Shape("lm_head 4096x151936", 4096, 151936, {1: 300.7, 2: 329.9, 4: 424.1, 8: 635.3, 16: 1226.9}),
)

# Marlin's README: about 3.87 times fp16 cuBLAS up to 16 to 32 tokens on an A10, near the ideal of 4 bits.
MARLIN_OVER_FP16 = 3.87
