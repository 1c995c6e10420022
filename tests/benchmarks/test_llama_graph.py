"""The decoder graph against a float64 forward pass written with loops and complex rotations."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import onnx
import pytest

from benchmarks.models.builders.degrid import degrid
from benchmarks.models.builders.llama import LlamaShape, build_llama, half_rotation_order
from benchmarks.models.candidate import open_session

SHAPE = LlamaShape(
    layers=2,
    hidden=16,
    heads=4,
    kv_heads=2,
    head_dim=4,
    norm_epsilon=1e-5,
    rope_base=100.0,
    max_positions=32,
)
VOCABULARY, INNER = 40, 24

ROUNDING = 2e-5
"""Of the largest logit: float32 sums of up to 24 products (24 x 6e-8) through about ten matrices in a row."""

Weights = dict[str, np.ndarray[Any, Any]]


@pytest.fixture
def weights() -> Weights:
    return tiny_weights(SHAPE)


@pytest.fixture
def tokens() -> np.ndarray[Any, Any]:
    return np.random.default_rng(1).integers(0, VOCABULARY, (2, 11))


def tiny_weights(shape: LlamaShape, *, tied: bool = True) -> Weights:
    """Random weights, large enough that attention is far from uniform."""
    random = np.random.default_rng(0)
    sizes = {
        "attn_q": (shape.heads * shape.head_dim, shape.hidden),
        "attn_k": (shape.kv_heads * shape.head_dim, shape.hidden),
        "attn_v": (shape.kv_heads * shape.head_dim, shape.hidden),
        "attn_output": (shape.hidden, shape.heads * shape.head_dim),
        "ffn_gate": (INNER, shape.hidden),
        "ffn_up": (INNER, shape.hidden),
        "ffn_down": (shape.hidden, INNER),
    }
    weights = {"token_embd.weight": random.normal(size=(VOCABULARY, shape.hidden))}
    if not tied:
        weights["output.weight"] = random.normal(size=(VOCABULARY, shape.hidden))
    for layer in range(shape.layers):
        for name, size in sizes.items():
            weights[f"blk.{layer}.{name}.weight"] = random.normal(size=size) * 0.5
        for name in ("attn_norm", "ffn_norm"):
            weights[f"blk.{layer}.{name}.weight"] = random.uniform(0.5, 1.5, shape.hidden)
    weights["output_norm.weight"] = random.uniform(0.5, 1.5, shape.hidden)
    return {name: array.astype(np.float32) for name, array in weights.items()}


def forward(weights: Weights, shape: LlamaShape, ids: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Logits float64 [S, V] of one sequence [S], one query and one head at a time."""
    w = {name: array.astype(np.float64) for name, array in weights.items()}

    def norm(x: np.ndarray[Any, Any], name: str) -> np.ndarray[Any, Any]:
        scaled: np.ndarray[Any, Any] = x / np.sqrt((x**2).mean(-1, keepdims=True) + shape.norm_epsilon)
        return scaled * w[name]

    def rotated(vector: np.ndarray[Any, Any], position: int) -> np.ndarray[Any, Any]:
        half = shape.head_dim // 2
        turn = np.exp(1j * position * shape.rope_base ** (-2 * np.arange(half) / shape.head_dim))
        pairs = (vector[:half] + 1j * vector[half:]) * turn
        return np.concatenate([pairs.real, pairs.imag])

    x = w["token_embd.weight"][ids]
    for layer in range(shape.layers):
        p = f"blk.{layer}."
        h = norm(x, p + "attn_norm.weight")
        q, k, v = (h @ w[f"{p}attn_{name}.weight"].T for name in "qkv")
        mixed = np.zeros_like(q)
        for head in range(shape.heads):
            at = slice(head * shape.head_dim, (head + 1) * shape.head_dim)
            shared = head // (shape.heads // shape.kv_heads)
            kv = slice(shared * shape.head_dim, (shared + 1) * shape.head_dim)
            for now in range(len(ids)):
                scores = [rotated(q[now, at], now) @ rotated(k[then, kv], then) for then in range(now + 1)]
                shares = np.exp(np.array(scores) / np.sqrt(shape.head_dim))
                mixed[now, at] = shares / shares.sum() @ v[: now + 1, kv]
        x = x + mixed @ w[p + "attn_output.weight"].T
        h = norm(x, p + "ffn_norm.weight")
        gate, up = h @ w[p + "ffn_gate.weight"].T, h @ w[p + "ffn_up.weight"].T
        x = x + (gate / (1 + np.exp(-gate)) * up) @ w[p + "ffn_down.weight"].T
    matrix = w.get("output.weight", w["token_embd.weight"])
    logits: np.ndarray[Any, Any] = norm(x, "output_norm.weight") @ matrix.T
    return logits


def error(model: onnx.ModelProto, expected: np.ndarray[Any, Any], tokens: np.ndarray[Any, Any]) -> float:
    """Largest difference from `expected`, relative to its largest value."""
    (logits,) = open_session(model.SerializeToString()).run(["logits"], {"input_ids": tokens})
    return float(np.abs(logits - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("tied", [True, False])
def test_logits_equal_the_reference(tied: bool, tokens: np.ndarray[Any, Any]) -> None:
    weights = tiny_weights(SHAPE, tied=tied)
    expected = np.stack([forward(weights, SHAPE, row) for row in tokens])
    assert error(build_llama(weights, SHAPE), expected, tokens) < ROUNDING


def test_without_grouped_heads(tokens: np.ndarray[Any, Any]) -> None:
    shape = dataclasses.replace(SHAPE, kv_heads=SHAPE.heads)
    weights = tiny_weights(shape)
    expected = np.stack([forward(weights, shape, row) for row in tokens])
    assert error(build_llama(weights, shape), expected, tokens) < ROUNDING


@pytest.mark.parametrize(
    "change",
    [{"rope_base": 101.0}, {"norm_epsilon": 1e-3}],
    ids=lambda change: next(iter(change)),
)
def test_a_wrong_constant_is_noticed(weights: Weights, tokens: np.ndarray[Any, Any], change: dict[str, Any]) -> None:
    expected = np.stack([forward(weights, SHAPE, row) for row in tokens])
    assert error(build_llama(weights, dataclasses.replace(SHAPE, **change)), expected, tokens) > ROUNDING


@pytest.mark.parametrize("name", ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_norm"])
def test_a_wrong_weight_is_noticed(weights: Weights, tokens: np.ndarray[Any, Any], name: str) -> None:
    expected = np.stack([forward(weights, SHAPE, row) for row in tokens])
    wrong = weights | {f"blk.1.{name}.weight": weights[f"blk.1.{name}.weight"] * np.float32(1.01)}
    assert error(build_llama(wrong, SHAPE), expected, tokens) > ROUNDING


def test_token_by_token_with_a_cache_equals_one_pass(weights: Weights, tokens: np.ndarray[Any, Any]) -> None:
    session = open_session(build_llama(weights, SHAPE, kv_cache=True).SerializeToString())
    expected = np.stack([forward(weights, SHAPE, row) for row in tokens])
    scale = np.abs(expected).max()
    for split in ([11], [1] * 11, [4, 3, 1, 3]):
        stepwise = run_in_steps(session, tokens, split)
        assert np.abs(stepwise - expected).max() / scale < ROUNDING, split


def test_a_cache_that_is_a_step_late_is_noticed(weights: Weights, tokens: np.ndarray[Any, Any]) -> None:
    session = open_session(build_llama(weights, SHAPE, kv_cache=True).SerializeToString())
    expected = np.stack([forward(weights, SHAPE, row) for row in tokens])
    stale = run_in_steps(session, tokens, [4, 3, 1, 3], forget=1)
    assert np.abs(stale - expected).max() / np.abs(expected).max() > 100 * ROUNDING


def run_in_steps(
    session: Any, tokens: np.ndarray[Any, Any], split: list[int], *, forget: int = 0
) -> np.ndarray[Any, Any]:
    """Feed the tokens in pieces and hand the cache on, less its last `forget` positions: logits [B, S, V]."""
    pasts = [value.name for value in session.get_inputs()[1:]]
    empty = np.zeros((len(tokens), SHAPE.kv_heads, 0, SHAPE.head_dim), np.float32)
    cache, logits, start = dict.fromkeys(pasts, empty), [], 0
    for count in split:
        step, *presents = session.run(None, {"input_ids": tokens[:, start : start + count], **cache})
        assert presents[0].shape[2] == cache[pasts[0]].shape[2] + count
        cache = {name: array[:, :, : array.shape[2] - forget] for name, array in zip(pasts, presents, strict=True)}
        logits.append(step)
        start += count
    return np.concatenate(logits, axis=1)


def test_half_rotation_order_undoes_the_order_of_llama_cpp() -> None:
    rows = np.arange(12.0)[:, None] * [1, 100]  # two heads of six rows
    stored = rows.reshape(2, 2, 3, 2).swapaxes(1, 2).reshape(12, 2)  # halves dealt into neighbours
    assert not np.array_equal(stored, rows)
    np.testing.assert_array_equal(half_rotation_order(stored, 2), rows)


def test_degridding_keeps_the_function(weights: Weights, tokens: np.ndarray[Any, Any]) -> None:
    expected = np.stack([forward(weights, SHAPE, row) for row in tokens])
    changed = degrid(weights, SHAPE)
    assert error(build_llama(changed, SHAPE), expected, tokens) < ROUNDING
    for name in ("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_down"):
        key = f"blk.0.{name}.weight"
        assert np.abs(changed[key] / weights[key] - 1).max() > 0.1, f"{name} was not rescaled"


def test_degridding_leaves_no_grid() -> None:
    """One block of 32 on 16 levels; afterwards its 32 values have 32 distinct ones."""
    shape = dataclasses.replace(SHAPE, hidden=32, layers=1)
    weights = tiny_weights(shape)
    key = "blk.0.attn_q.weight"
    weights[key] = np.round(weights[key] * 4).clip(-8, 7).astype(np.float32)
    assert len(np.unique(weights[key][0])) <= 16
    assert len(np.unique(degrid(weights, shape)[key][0])) == np.count_nonzero(weights[key][0]) + (0 in weights[key][0])


def test_degridding_leaves_its_input_alone(weights: Weights) -> None:
    before = {name: array.copy() for name, array in weights.items()}
    degrid(weights, SHAPE)
    for name, array in weights.items():
        np.testing.assert_array_equal(array, before[name])
