"""How far a model's outputs are from a reference: the numbers that more than one scorer reports."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def log_softmax(logits: Array) -> Array:
    """Natural log of the probabilities over the last axis, in float64."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted


def kl_divergence(reference: Array, logits: Array) -> Array:
    """KL(reference || other) in nats at every position: logits [.., V] twice -> float64 [..]."""
    expected, got = log_softmax(reference), log_softmax(logits)
    divergence: Array = (np.exp(expected) * (expected - got)).sum(axis=-1)
    return divergence


def top1_agreement(reference: Array, logits: Array) -> Array:
    """Whether both put the same class first: logits [.., V] twice -> bool [..]."""
    same: Array = reference.argmax(axis=-1) == logits.argmax(axis=-1)
    return same


def sqnr_db(reference: Array, other: Array) -> float:
    """Signal to quantization noise, 10 log10(sum r^2 / sum (r - x)^2); infinite when both are equal."""
    wide = reference.astype(np.float64)
    noise = float(((wide - other) ** 2).sum())
    return 10 * float(np.log10((wide**2).sum() / noise)) if noise else float("inf")


def edit_distance(first: str, second: str) -> int:
    """Levenshtein: the fewest insertions, deletions and replacements of characters between two strings."""
    above = list(range(len(second) + 1))
    for row, left in enumerate(first, 1):
        here = [row]
        for column, right in enumerate(second, 1):
            replaced = above[column - 1] + (left != right)
            here.append(min(above[column] + 1, here[-1] + 1, replaced))
        above = here
    return above[-1]
