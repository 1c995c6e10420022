"""A copy of a decoder that computes the same function from weights that lie on no grid.

The public SmolLM2 file was quantized to 4 bits in blocks of 32 before it was published. A method with the
same blocks and float offsets would find that grid again and look perfect. So channels are rescaled where
the factor cancels:

1. norm weight / s, and the columns of every matrix that reads the norm * s (q, k, v; gate, up);
2. rows of v / s, columns of the attention output * s (repeated for the query heads of a key/value head);
3. rows of up / s, columns of down * s.

Factors are lognormal, so neighbours in a block of 32 get different ones and the grid is gone.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .llama import LlamaShape, Weights

SIGMA = 0.25
"""Spread of the factors: most lie within 0.6 .. 1.6, mild enough not to invent outliers."""

READERS_OF_A_NORM = (("attn_norm", "attn_q", "attn_k", "attn_v"), ("ffn_norm", "ffn_gate", "ffn_up"))


def degrid(weights: Weights, shape: LlamaShape, *, sigma: float = SIGMA, seed: int = 0) -> dict[str, Any]:
    """Rescale channels; the function stays the same to float rounding.

    Args:
        weights: as for `build_llama`, matrices [out, in].
    Returns:
        New weights; the arrays given are not touched.
    """
    random = np.random.RandomState(seed)

    def factors(count: int) -> np.ndarray[Any, Any]:
        return np.exp(sigma * random.randn(count)).astype(np.float32)

    new = dict(weights)
    for layer in range(shape.layers):
        prefix = f"blk.{layer}."
        for norm, *readers in READERS_OF_A_NORM:
            scale = factors(shape.hidden)
            new[f"{prefix}{norm}.weight"] = new[f"{prefix}{norm}.weight"] / scale
            for reader in readers:
                new[f"{prefix}{reader}.weight"] = new[f"{prefix}{reader}.weight"] * scale
        v, output = prefix + "attn_v.weight", prefix + "attn_output.weight"
        scale = factors(shape.kv_heads * shape.head_dim)
        by_head = np.repeat(scale.reshape(shape.kv_heads, 1, -1), shape.heads // shape.kv_heads, axis=1)
        new[v], new[output] = new[v] / scale[:, None], new[output] * by_head.reshape(-1)
        up, down = prefix + "ffn_up.weight", prefix + "ffn_down.weight"
        scale = factors(new[up].shape[0])
        new[up], new[down] = new[up] / scale[:, None], new[down] * scale
    return new
