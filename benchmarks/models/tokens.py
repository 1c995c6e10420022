"""Text as token windows for SmolLM2 and as padded batches for MiniLM."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .builders import minilm, smollm2
from .errors import require
from .folder import ModelFolder

Feed = dict[str, np.ndarray[Any, Any]]
"""One run of a model: input names and arrays."""

BEGIN_OF_SEQUENCE = 1
"""SmolLM2's first token."""

WINDOW = 256
"""Positions in an evaluation window, counting the begin-of-sequence token."""

MAX_TOKENS = 128
"""MiniLM documents are cut here; most news items are shorter."""


def smollm2_ids(folder: ModelFolder, texts: Sequence[str]) -> list[np.ndarray[Any, Any]]:
    """Token ids int64 [tokens] of each text, without a begin-of-sequence token."""
    tokenizer = smollm2.read_tokenizer(smollm2.gguf_file(folder))
    return [np.array(tokenizer.encode(text).ids, np.int64) for text in texts]


def windows(ids: np.ndarray[Any, Any], width: int = WINDOW) -> Iterator[np.ndarray[Any, Any]]:
    """Cut ids [n] into whole pieces of `width - 1`; a rest that does not fill one is left out."""
    for start in range(0, len(ids) - width + 2, width - 1):
        yield ids[start : start + width - 1]


@dataclass(frozen=True, slots=True)
class Batch:
    """Documents padded to the longest.

    Attributes:
        rows: which of the documents given these are, int64 [B].
        feed: input_ids, attention_mask, token_type_ids, int64 [B, S].
    """

    rows: np.ndarray[Any, Any]
    feed: Feed


def minilm_batches(folder: ModelFolder, texts: Sequence[str], *, size: int = 16) -> Iterator[Batch]:
    """Tokenize documents and batch those of like length together."""
    tokenizers = require("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(folder.source(f"{minilm.SOURCE}/tokenizer.json")))
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.no_padding()
    ids = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
    order = np.argsort([len(each) for each in ids])
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        yield Batch(rows, padded_feed([ids[row] for row in rows]))


def padded_feed(ids: Sequence[Sequence[int]]) -> Feed:
    """MiniLM's inputs for some token sequences: 0 where a row has ended, and a mask that says so."""
    shape = len(ids), max(map(len, ids))
    input_ids, mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for row, sequence in enumerate(ids):
        input_ids[row, : len(sequence)] = sequence
        mask[row, : len(sequence)] = 1
    return {"input_ids": input_ids, "attention_mask": mask, "token_type_ids": np.zeros_like(mask)}
