"""MiniLM: do its sentence embeddings still carry the topic of a text, and still point where they did?

An embedding is the mean of the last hidden states over the real tokens, scaled to length 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..candidate import Candidate, Score
from ..errors import require
from ..folder import ModelFolder
from ..texts import labelled_documents
from ..tokens import minilm_batches

REUTERS_TRAIN = 2000
NEWS_TRAIN, NEWS_TEST = 3000, 1500
SIMILARITY_DOCUMENTS = 500

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class ProbeScore(Score):
    """Test accuracy of a logistic regression on the embeddings: Reuters R8 and 20 Newsgroups."""

    reuters_r8: float
    newsgroups_20: float
    documents: int


@dataclass(frozen=True, slots=True)
class SimilarityScore(Score):
    """Against the float model, on Reuters test documents.

    Attributes:
        cosine: mean cosine between a document's two embeddings.
        worst_cosine: the lowest of them.
        nearest_agreement: share of documents whose nearest other document stays the same.
    """

    cosine: float
    worst_cosine: float
    nearest_agreement: float
    documents: int


def similarity(candidate: Candidate) -> SimilarityScore:
    """Compare embeddings; `limit` counts documents. Needs no scikit-learn."""
    texts, _ = labelled_documents(candidate.folder, "reuters-r8-test")
    texts = texts[: candidate.at_most(SIMILARITY_DOCUMENTS)]
    expected = embed(candidate.reference_session(), candidate.folder, texts)
    got = embed(candidate.session(), candidate.folder, texts)
    cosines = (expected * got).sum(axis=1)
    same = _nearest(expected) == _nearest(got)
    return SimilarityScore(float(cosines.mean()), float(cosines.min()), float(same.mean()), len(texts))


def probe(candidate: Candidate) -> ProbeScore:
    """Fit and test the two probes; `limit` counts documents for each of training and test."""
    session, folder = candidate.session(), candidate.folder
    random = np.random.RandomState(0)
    accuracies, documents = [], 0
    for name, train, test in (("reuters-r8", REUTERS_TRAIN, None), ("20newsgroups", NEWS_TRAIN, NEWS_TEST)):
        texts, labels = labelled_documents(folder, f"{name}-train")
        test_texts, test_labels = labelled_documents(folder, f"{name}-test")
        chosen = random.permutation(len(texts))[: candidate.at_most(train)]
        shuffled = np.arange(len(test_texts)) if test is None else random.permutation(len(test_texts))[:test]
        held_out = shuffled[: candidate.at_most(len(shuffled))]
        model = require("sklearn.linear_model").LogisticRegression(max_iter=2000, C=10)
        model.fit(embed(session, folder, [texts[row] for row in chosen]), [labels[row] for row in chosen])
        features = embed(session, folder, [test_texts[row] for row in held_out])
        accuracies.append(float(model.score(features, [test_labels[row] for row in held_out])))
        documents += len(held_out)
    return ProbeScore(accuracies[0], accuracies[1], documents)


def embed(session: Any, folder: ModelFolder, texts: Sequence[str]) -> Array:
    """Sentence embeddings float32 [len(texts), hidden], each of length 1."""
    rows: dict[int, Array] = {}
    for batch in minilm_batches(folder, texts):
        hidden = session.run(["last_hidden_state"], batch.feed)[0]  # [B, S, hidden]
        mask = batch.feed["attention_mask"][..., None]
        means = (hidden * mask).sum(axis=1) / mask.sum(axis=1)
        unit = means / np.linalg.norm(means, axis=1, keepdims=True)
        rows.update(zip(map(int, batch.rows), unit.astype(np.float32), strict=True))
    return np.stack([rows[row] for row in range(len(texts))])


def _nearest(embeddings: Array) -> Array:
    """For each row the index of the most similar other row: int64 [n]."""
    cosines = embeddings @ embeddings.T
    np.fill_diagonal(cosines, -1)
    nearest: Array = cosines.argmax(axis=1)
    return nearest
