"""A recurrent network: embedding, a bidirectional LSTM, a classifier over every token."""

from __future__ import annotations

import onnx

from benchmarks.models.graph import float_tensor, int_tensor
from zoo.writer import VOCABULARY, WIDTH, Writer

__all__ = ["lstm"]

_STATE = 32


def lstm(seed: int = 20) -> onnx.ModelProto:
    """[B, L] tokens -> [B, L, VOCABULARY] logits."""
    g = Writer(seed)
    x = g.node("Gather", [g.normal("table", VOCABULARY, WIDTH), "input_ids"])
    rows = g.node("Transpose", [x], perm=[1, 0, 2])
    with g.scope("/lstm"):
        weight = g.normal("lstm.weight", 2, 4 * _STATE, WIDTH, fan_in=WIDTH)
        recurrent = g.normal("lstm.recurrent", 2, 4 * _STATE, _STATE, fan_in=_STATE)
        y = g.node("LSTM", [rows, weight, recurrent], hidden_size=_STATE, direction="bidirectional")  # [L, 2, B, S]
    y = g.node("Transpose", [y], perm=[2, 0, 1, 3])
    y = g.node("Reshape", [y, g.integers("merge", [0, 0, 2 * _STATE])])
    with g.scope("/classifier"):
        weight = g.normal("classifier.weight", 2 * _STATE, VOCABULARY, fan_in=2 * _STATE)
        y = g.node("MatMul", [y, weight])
        g.node("Add", [y, g.around("classifier.bias", VOCABULARY)], output="logits")
    tokens = [int_tensor("input_ids", ["batch", "length"])]
    return g.finished(tokens, [float_tensor("logits", ["batch", "length", VOCABULARY])])
