"""Greedy text with a decoder that has a key/value cache: the whole prompt once, then token by token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np


def greedy(session: Any, prompt: Sequence[int], *, steps: int) -> Iterator[int]:
    """Yield the likeliest next token, `steps` times.

    Args:
        session: an onnxruntime session on a model with inputs input_ids [1, S] and
            past_key_values.N.key/value [1, heads, P, head_dim], outputs logits and present.N.key/value.
        prompt: token ids, with the begin-of-sequence token if the model wants one.
        steps: how many tokens to yield.
    """
    pasts = [value for value in session.get_inputs() if value.name.startswith("past_key_values.")]
    outputs = ["logits", *(value.name.replace("past_key_values", "present") for value in pasts)]
    cache = {value.name: np.zeros((1, value.shape[1], 0, value.shape[3]), np.float32) for value in pasts}
    new = np.array([prompt], np.int64)
    for _ in range(steps):
        logits, *presents = session.run(outputs, {"input_ids": new, **cache})
        cache = {value.name: present for value, present in zip(pasts, presents, strict=True)}
        new = logits[:, -1].argmax(axis=-1, keepdims=True)
        yield int(new[0, 0])
