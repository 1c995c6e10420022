"""A Llama-shaped decoder as an ONNX graph: RMSNorm, rotary positions, grouped-query attention, SwiGLU.

    x = embedding[input_ids]
    for every layer:
        q, k, v = heads of RMSNorm(x) @ {Wq, Wk, Wv};  q, k rotated by their positions
        x += softmax(q k^T / sqrt(head_dim) + causal mask) v @ Wo
        g, u = RMSNorm(x) @ {Wgate, Wup};  x += (g * sigmoid(g) * u) @ Wdown
    logits = RMSNorm(x) @ head        (the embedding itself when the model ties the two)

Matrices are stored [K, N] = [in, out], ready for MatMul; a tied head is a Transpose of the one embedding.
With `kv_cache` the graph takes the keys and values of the tokens before, and gives back those of all
tokens so far: keys are cached rotated and before they are repeated for the query heads.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from ..graph import GraphWriter, float_tensor, int_tensor

Weights = Mapping[str, np.ndarray[Any, Any]]
"""Tensors by the names of llama.cpp ("blk.0.attn_q.weight"), matrices [out, in], float32."""

MASKED = -1e9
"""Added to the score of a token in the future: exp() of it is 0 in float32."""


@dataclass(frozen=True, slots=True)
class LlamaShape:
    """Sizes and constants of a decoder. `max_positions` bounds the tables of angles and positions."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    norm_epsilon: float
    rope_base: float
    max_positions: int = 1024


@dataclass(frozen=True, slots=True)
class _Span:
    """Names of the graph values that depend on where the new tokens lie, computed once for all layers.

    Tokens start..end-1 are new (S of them) and see the keys 0..end-1 (T of them).
    """

    repeated: str  # int64 [5]: B, kv_heads, heads / kv_heads, T, head_dim
    cos: str  # float32 [S, head_dim]
    sin: str  # float32 [S, head_dim]
    mask: str  # float32 [S, T]


def build_llama(weights: Weights, shape: LlamaShape, *, kv_cache: bool = False) -> onnx.ModelProto:
    """Build the decoder.

    Args:
        weights: llama.cpp names, matrices [out, in], q and k rows in half-rotation order
            (see `half_rotation_order`). Without "output.weight" the head is tied to the embedding.
        kv_cache: False: input_ids int64 [B, S] -> logits float32 [B, S, V]. True: also
            past_key_values.N.key/value [B, kv_heads, P, head_dim] in (P may be 0) and
            present.N.key/value [B, kv_heads, T = P + S, head_dim] out.
    """
    decoder = _Decoder(weights, shape, kv_cache)
    vocabulary = weights["token_embd.weight"].shape[0]
    decoder.write()
    inputs = [int_tensor("input_ids", ["B", "S"])]
    outputs = [float_tensor("logits", ["B", "S", vocabulary])]
    if kv_cache:
        for layer, part in itertools.product(range(shape.layers), ("key", "value")):
            past, present = f"past_key_values.{layer}.{part}", f"present.{layer}.{part}"
            inputs.append(float_tensor(past, ["B", shape.kv_heads, "P", shape.head_dim]))
            outputs.append(float_tensor(present, ["B", shape.kv_heads, "T", shape.head_dim]))
    return decoder.graph.model("llama", inputs, outputs)


def half_rotation_order(matrix: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """Reorder the rows of a q or k matrix from llama.cpp's rotation pairs to two halves.

    llama.cpp rotates neighbours (2i, 2i+1), the graph rotates (i, i + head_dim/2): the same function
    once the rows of every head are dealt out into the even ones, then the odd ones.

    Args:
        matrix: [heads * head_dim, hidden].
    Returns:
        The same shape.
    """
    pairs = matrix.reshape(heads, -1, 2, matrix.shape[1])
    return pairs.swapaxes(1, 2).reshape(matrix.shape)


class _Decoder:
    """Writes the graph from top to bottom; every method returns the name of what it computed."""

    def __init__(self, weights: Weights, shape: LlamaShape, kv_cache: bool) -> None:
        self.graph = GraphWriter()
        self.weights = weights
        self.shape = shape
        self.kv_cache = kv_cache

    def write(self) -> None:
        graph = self.graph
        span = self._span()
        embedding = graph.initializer("token_embd.weight", self.weights["token_embd.weight"])  # [V, hidden]
        x = graph.node("Gather", [embedding, "input_ids"])  # [B, S, hidden]
        for layer in range(self.shape.layers):
            with graph.scope(f"/layers.{layer}"):
                x = graph.node("Add", [x, self._attention(x, layer, span)])
                x = graph.node("Add", [x, self._feed_forward(x, layer)])
        x = self._rms_norm(x, "output_norm.weight")
        with graph.scope("/lm_head"):
            if "output.weight" in self.weights:
                head = graph.initializer("lm_head.weight_T", self.weights["output.weight"].T)
            else:
                head = graph.node("Transpose", [embedding], perm=[1, 0])
            graph.node("MatMul", [x, head], output="logits")

    def _span(self) -> _Span:
        graph, shape = self.graph, self.shape
        zero, one, two = graph.integers("0", [0]), graph.integers("1", [1]), graph.integers("2", [2])
        size = graph.node("Shape", ["input_ids"])
        batch = graph.node("Slice", [size, zero, one])
        start, end = zero, graph.node("Slice", [size, one, two])
        if self.kv_cache:
            past = graph.node("Shape", ["past_key_values.0.key"])
            start = graph.node("Slice", [past, two, graph.integers("3", [3])])
            end = graph.node("Add", [start, end])
        sizes = [
            graph.integers("kv_heads", [shape.kv_heads]),
            graph.integers("repeats", [shape.heads // shape.kv_heads]),
            end,
            graph.integers("head", [shape.head_dim]),
        ]
        frequencies = 1.0 / shape.rope_base ** (np.arange(0, shape.head_dim, 2) / shape.head_dim)
        angles = np.outer(np.arange(shape.max_positions), np.tile(frequencies, 2))
        cos = graph.initializer("rope_cos", np.cos(angles).astype(np.float32))  # [max_positions, head_dim]
        sin = graph.initializer("rope_sin", np.sin(angles).astype(np.float32))
        return _Span(
            repeated=graph.node("Concat", [batch, *sizes], axis=0),
            cos=graph.node("Slice", [cos, start, end]),
            sin=graph.node("Slice", [sin, start, end]),
            mask=self._causal_mask(start, end),
        )

    def _causal_mask(self, start: str, end: str) -> str:
        """0 where a key is not later than the query, -1e9 where it is: float32 [S, T]."""
        graph = self.graph
        every = np.arange(self.shape.max_positions, dtype=np.int64)
        positions = graph.initializer("positions", every)
        queries = graph.node("Unsqueeze", [graph.node("Slice", [positions, start, end]), "1"])  # [S, 1]
        keys = graph.node("Unsqueeze", [graph.node("Slice", [positions, "0", end]), "0"])  # [1, T]
        seen = graph.node("LessOrEqual", [keys, queries])
        visible, masked = graph.scalar("visible", 0.0), graph.scalar("masked", MASKED)
        return graph.node("Where", [seen, visible, masked])

    def _linear(self, x: str, name: str) -> str:
        """[B, S, K] -> [B, S, N]."""
        matrix = self.graph.initializer(name + "_T", self.weights[name].T)
        with self.graph.scope("/" + name.split(".")[-2]):
            return self.graph.node("MatMul", [x, matrix])

    def _rms_norm(self, x: str, name: str) -> str:
        """x / sqrt(mean(x^2) + epsilon) * weight, over the last axis."""
        graph = self.graph
        squares = graph.node("Pow", [x, graph.scalar("two", 2.0)])
        mean = graph.node("ReduceMean", [squares], axes=[-1], keepdims=1)
        shifted = graph.node("Add", [mean, graph.scalar("norm_epsilon", self.shape.norm_epsilon)])
        inverse = graph.node("Reciprocal", [graph.node("Sqrt", [shifted])])
        weight = graph.initializer(name, self.weights[name])
        return graph.node("Mul", [graph.node("Mul", [x, inverse]), weight])

    def _attention(self, x: str, layer: int, span: _Span) -> str:
        """[B, S, hidden] -> [B, S, hidden]."""
        graph, shape, prefix = self.graph, self.shape, f"blk.{layer}."
        x = self._rms_norm(x, prefix + "attn_norm.weight")
        q = self._rotate(self._heads(x, prefix + "attn_q.weight", shape.heads), span)
        k = self._rotate(self._heads(x, prefix + "attn_k.weight", shape.kv_heads), span)
        v = self._heads(x, prefix + "attn_v.weight", shape.kv_heads)
        if self.kv_cache:
            k, v = self._appended(k, layer, "key"), self._appended(v, layer, "value")
        k, v = self._repeat(k, span), self._repeat(v, span)  # [B, heads, T, head_dim]
        turned = graph.node("Transpose", [k], perm=[0, 1, 3, 2])
        scores = graph.node("MatMul", [q, turned])  # [B, heads, S, T]
        scores = graph.node("Mul", [scores, graph.scalar("attention_scale", 1 / np.sqrt(shape.head_dim))])
        shares = graph.node("Softmax", [graph.node("Add", [scores, span.mask])], axis=-1)
        mixed = graph.node("Transpose", [graph.node("MatMul", [shares, v])], perm=[0, 2, 1, 3])
        joined = graph.integers("joined_heads", [0, 0, shape.heads * shape.head_dim])
        return self._linear(graph.node("Reshape", [mixed, joined]), prefix + "attn_output.weight")

    def _appended(self, x: str, layer: int, part: str) -> str:
        """Put new keys or values [B, kv_heads, S, head_dim] behind the cached ones: [.., T, head_dim]."""
        inputs = [f"past_key_values.{layer}.{part}", x]
        return self.graph.node("Concat", inputs, axis=2, output=f"present.{layer}.{part}")

    def _heads(self, x: str, name: str, heads: int) -> str:
        """Multiply and split: [B, S, hidden] -> [B, heads, S, head_dim]."""
        split = self.graph.integers(f"split_{heads}_heads", [0, 0, heads, self.shape.head_dim])
        parts = self.graph.node("Reshape", [self._linear(x, name), split])
        return self.graph.node("Transpose", [parts], perm=[0, 2, 1, 3])

    def _rotate(self, x: str, span: _Span) -> str:
        """Rotary position: x * cos + (-second half, first half) * sin; [B, heads, S, head_dim] stays."""
        graph, dim = self.graph, self.shape.head_dim
        zero, half, full = "0", graph.integers("half_head", [dim // 2]), "head"
        last = graph.integers("last_axis", [3])
        first = graph.node("Slice", [x, zero, half, last])
        second = graph.node("Slice", [x, half, full, last])
        turned = graph.node("Concat", [graph.node("Neg", [second]), first], axis=3)
        return graph.node("Add", [graph.node("Mul", [x, span.cos]), graph.node("Mul", [turned, span.sin])])

    def _repeat(self, x: str, span: _Span) -> str:
        """Give every query head its key or value head: [B, kv_heads, T, ..] -> [B, heads, T, ..]."""
        graph, shape = self.graph, self.shape
        if shape.heads == shape.kv_heads:
            return x
        copies = graph.node("Expand", [graph.node("Unsqueeze", [x, "2"]), span.repeated])
        all_heads = graph.integers("all_heads", [0, shape.heads, -1, shape.head_dim])
        return graph.node("Reshape", [copies, all_heads])

    def _feed_forward(self, x: str, layer: int) -> str:
        """SwiGLU: [B, S, hidden] -> [B, S, hidden]."""
        graph, prefix = self.graph, f"blk.{layer}."
        x = self._rms_norm(x, prefix + "ffn_norm.weight")
        gate, up = self._linear(x, prefix + "ffn_gate.weight"), self._linear(x, prefix + "ffn_up.weight")
        gate = graph.node("Mul", [gate, graph.node("Sigmoid", [gate])])
        return self._linear(graph.node("Mul", [gate, up]), prefix + "ffn_down.weight")
