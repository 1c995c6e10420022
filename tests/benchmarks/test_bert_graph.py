"""The encoder graph against a float64 forward pass."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from benchmarks.models.builders.minilm import BertShape, build_bert
from benchmarks.models.candidate import open_session

SHAPE = BertShape(layers=2, hidden=12, heads=3, max_positions=16, norm_epsilon=1e-12)
INNER, VOCABULARY = 20, 30

ROUNDING = 1e-5
"""Outputs are normalized to about 1; float32 sums of up to 20 products through ten matrices."""

Weights = dict[str, np.ndarray[Any, Any]]


@pytest.fixture
def weights() -> Weights:
    random = np.random.default_rng(0)
    tables = {"word": VOCABULARY, "token_type": 2, "position": SHAPE.max_positions}
    weights = {
        f"embeddings.{name}_embeddings.weight": random.normal(size=(rows, SHAPE.hidden))
        for name, rows in tables.items()
    }
    norms = ["embeddings.LayerNorm"]
    for layer in range(SHAPE.layers):
        p = f"encoder.layer.{layer}."
        linears = {f"{p}attention.self.{name}": (SHAPE.hidden, SHAPE.hidden) for name in ("query", "key", "value")}
        linears[p + "attention.output.dense"] = (SHAPE.hidden, SHAPE.hidden)
        linears[p + "intermediate.dense"] = (INNER, SHAPE.hidden)
        linears[p + "output.dense"] = (SHAPE.hidden, INNER)
        for name, size in linears.items():
            weights[name + ".weight"], weights[name + ".bias"] = (
                random.normal(size=size),
                random.normal(size=size[0]),
            )
        norms += [p + "attention.output.LayerNorm", p + "output.LayerNorm"]
    for name in norms:
        weights[name + ".weight"] = random.uniform(0.5, 1.5, SHAPE.hidden)
        weights[name + ".bias"] = random.normal(size=SHAPE.hidden)
    return {name: array.astype(np.float32) for name, array in weights.items()}


def forward(weights: Weights, ids: np.ndarray[Any, Any], types: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Hidden states float64 [S, hidden] of one sequence without padding."""
    w = {name: array.astype(np.float64) for name, array in weights.items()}
    erf = np.vectorize(math.erf)

    def norm(x: np.ndarray[Any, Any], name: str) -> np.ndarray[Any, Any]:
        centered = x - x.mean(-1, keepdims=True)
        deviation = np.sqrt((centered**2).mean(-1, keepdims=True) + SHAPE.norm_epsilon)
        unit: np.ndarray[Any, Any] = centered / deviation
        return unit * w[name + ".weight"] + w[name + ".bias"]

    def linear(x: np.ndarray[Any, Any], name: str) -> np.ndarray[Any, Any]:
        product: np.ndarray[Any, Any] = x @ w[name + ".weight"].T + w[name + ".bias"]
        return product

    tables = {name: w[f"embeddings.{name}_embeddings.weight"] for name in ("word", "token_type", "position")}
    x = tables["word"][ids] + tables["token_type"][types] + tables["position"][: len(ids)]
    x = norm(x, "embeddings.LayerNorm")
    for layer in range(SHAPE.layers):
        p = f"encoder.layer.{layer}."
        q, k, v = (linear(x, f"{p}attention.self.{name}") for name in ("query", "key", "value"))
        size, heads = SHAPE.hidden // SHAPE.heads, []
        for at in (slice(head * size, (head + 1) * size) for head in range(SHAPE.heads)):
            shares = np.exp(q[:, at] @ k[:, at].T / np.sqrt(size))
            heads.append(shares / shares.sum(-1, keepdims=True) @ v[:, at])
        mixed = linear(np.concatenate(heads, axis=1), p + "attention.output.dense")
        x = norm(mixed + x, p + "attention.output.LayerNorm")
        h = linear(x, p + "intermediate.dense")
        h = h * (1 + erf(h / np.sqrt(2))) / 2
        x = norm(linear(h, p + "output.dense") + x, p + "output.LayerNorm")
    return x


def run(weights: Weights, feed: dict[str, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    session = open_session(build_bert(weights, SHAPE).SerializeToString())
    output: np.ndarray[Any, Any] = session.run(["last_hidden_state"], feed)[0]
    return output


@pytest.fixture
def feed() -> dict[str, np.ndarray[Any, Any]]:
    """Two sequences, the second four tokens long and padded to seven."""
    random = np.random.default_rng(1)
    mask = np.ones((2, 7), np.int64)
    mask[1, 4:] = 0
    ids, types = random.integers(0, VOCABULARY, (2, 7)), random.integers(0, 2, (2, 7))
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


def test_hidden_states_equal_the_reference(weights: Weights, feed: dict[str, np.ndarray[Any, Any]]) -> None:
    hidden = run(weights, feed)
    for row, length in ((0, 7), (1, 4)):
        ids, types = feed["input_ids"][row, :length], feed["token_type_ids"][row, :length]
        assert np.abs(hidden[row, :length] - forward(weights, ids, types)).max() < ROUNDING


def test_padding_is_noticed_without_the_mask(weights: Weights, feed: dict[str, np.ndarray[Any, Any]]) -> None:
    hidden = run(weights, feed | {"attention_mask": np.ones((2, 7), np.int64)})
    expected = forward(weights, feed["input_ids"][1, :4], feed["token_type_ids"][1, :4])
    assert np.abs(hidden[1, :4] - expected).max() > 100 * ROUNDING


@pytest.mark.parametrize("name", ["attention.self.key.weight", "output.dense.bias", "intermediate.dense.weight"])
def test_a_wrong_weight_is_noticed(weights: Weights, feed: dict[str, np.ndarray[Any, Any]], name: str) -> None:
    key = "encoder.layer.0." + name
    hidden = run(weights | {key: weights[key] * np.float32(1.01)}, feed)
    expected = forward(weights, feed["input_ids"][0], feed["token_type_ids"][0])
    assert np.abs(hidden[0] - expected).max() > 10 * ROUNDING
