"""A weight quantizer of your own: this file and pyproject.toml are all it takes.

`pip install .`, then `onnxq convert model.onnx --method stochastic`.

Stochastic rounding goes up with a probability equal to the remainder, so that the error is zero on average.
"""

import numpy as np

from onnxq.affine import QuantizedWeight, blocked_view, scales_from_range
from onnxq.plugin.hookspecs import hookimpl


class StochasticRounding:
    """Round at random, over each block's full range."""

    name = "stochastic"

    def quantize(self, weight, scheme, evidence):
        """weight: float32 [K, N], read-only; evidence: what calibration saw, not needed here."""
        k, n = weight.shape
        blocks = blocked_view(weight, scheme.block_size or k)  # [blocks, block_size, N]
        low, high = blocks.min(axis=1, keepdims=True), blocks.max(axis=1, keepdims=True)
        scales, zero_points = scales_from_range(low, high, scheme)  # [blocks, 1, N]
        noise = np.random.default_rng(k * n).random(blocks.shape, dtype=np.float32)
        codes = np.floor(blocks / scales + noise)
        if zero_points is not None:
            codes += zero_points
        codes = np.clip(codes, scheme.qmin, scheme.qmax).reshape(-1, n)[:k]
        dtype = np.int8 if scheme.symmetric else np.uint8
        return QuantizedWeight(
            codes=codes.astype(dtype),
            scales=scales[:, 0],
            zero_points=None if zero_points is None else zero_points[:, 0].astype(dtype),
            scheme=scheme,
        )


@hookimpl
def onnxq_weight_quantizers():
    """Called once, when a command starts."""
    return [StochasticRounding()]
