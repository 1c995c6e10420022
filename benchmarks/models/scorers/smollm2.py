"""SmolLM2: perplexity of two texts, and how far the predictions are from the float model's.

Windows of 256 positions: a begin-of-sequence token and 255 tokens of text, each predicted from those before
it. 8,192 tokens make 32 whole windows, that is 8,160 predictions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..candidate import Candidate, Score
from ..metrics import kl_divergence, log_softmax, top1_agreement
from ..texts import grimm_tales, python_manual
from ..tokens import BEGIN_OF_SEQUENCE, WINDOW, smollm2_ids, windows

TOKENS = 8192
DIVERGENCE_WINDOWS = 12
"""Enough for three digits of KL (3,060 positions), at an eighth of the perplexities' cost."""

CHARACTERS_PER_TOKEN = 8
"""More than any English text has, so that a prefix this long always holds the tokens wanted."""

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class PerplexityScore(Score):
    """exp(mean negative log likelihood) of Grimm's tales and of Python's manual."""

    tales: float
    manual: float
    tokens: int


@dataclass(frozen=True, slots=True)
class DivergenceScore(Score):
    """Against the float model on the first windows of the tales: mean KL in nats, share of equal top-1."""

    kl: float
    top1_agreement: float
    tokens: int


def perplexity(candidate: Candidate) -> PerplexityScore:
    """Score the candidate alone; `limit` counts tokens of each text."""
    session, wanted = candidate.session(), candidate.at_most(TOKENS)
    means, beginning = [], slice(wanted * CHARACTERS_PER_TOKEN)
    texts = [grimm_tales(candidate.folder)[beginning], python_manual()[beginning]]
    for ids in smollm2_ids(candidate.folder, texts):
        pieces = windows(ids[:wanted], _width(wanted))
        losses = np.concatenate([_losses(session, piece) for piece in pieces])
        means.append(float(np.exp(losses.mean())))
    return PerplexityScore(tales=means[0], manual=means[1], tokens=len(losses))


def divergence(candidate: Candidate) -> DivergenceScore:
    """Score the candidate beside the float model; `limit` counts tokens."""
    session, reference = candidate.session(), candidate.reference_session()
    wanted = candidate.at_most(DIVERGENCE_WINDOWS * (WINDOW - 1))
    text = grimm_tales(candidate.folder)[: wanted * CHARACTERS_PER_TOKEN]
    (ids,) = smollm2_ids(candidate.folder, [text])
    kl, same = [], []
    for window in windows(ids[:wanted], _width(wanted)):
        expected, got = predictions(reference, window), predictions(session, window)
        kl.append(kl_divergence(expected, got))
        same.append(top1_agreement(expected, got))
    every = np.concatenate(kl)
    return DivergenceScore(float(every.mean()), float(np.concatenate(same).mean()), len(every))


def predictions(session: Any, window: Array) -> Array:
    """Logits float32 [n, V] for each token of a window [n], given the tokens before it.

    A model with a key/value cache is run with an empty one.
    """
    ids = np.concatenate([[BEGIN_OF_SEQUENCE], window[:-1]]).astype(np.int64)
    feed: dict[str, Array] = {"input_ids": ids[None]}
    for value in session.get_inputs():
        if value.name.startswith("past_key_values."):
            _, heads, _, head_dim = value.shape
            feed[value.name] = np.zeros((1, heads, 0, head_dim), np.float32)
    logits: Array = session.run(["logits"], feed)[0][0]
    return logits


def _losses(session: Any, window: Array) -> Array:
    """-log p of each token of a window: float64 [n]."""
    return -log_softmax(predictions(session, window))[np.arange(len(window)), window]


def _width(tokens: int) -> int:
    """The window, shortened when a limit leaves fewer tokens than one window takes."""
    return min(WINDOW, tokens + 1)
