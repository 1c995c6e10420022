"""Magika: file types told right, by the file's ending, and in agreement with the float model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..candidate import Candidate, Score
from ..file_bytes import MagikaConfig, evaluation_files, features
from ..metrics import top1_agreement

BATCH = 16


@dataclass(frozen=True, slots=True)
class FileScore(Score):
    """Share of files whose type equals their ending, and whose type equals the float model's answer.

    The accuracy depends on the files of the machine; the agreement hardly does.
    """

    accuracy: float
    top1_agreement: float
    files: int
    labels: int


def files(candidate: Candidate) -> FileScore:
    """Classify files of this machine; `limit` counts files, spread over the labels."""
    config = MagikaConfig.read(candidate.folder)
    chosen = evaluation_files(config)
    chosen = chosen[:: max(1, len(chosen) // candidate.at_most(len(chosen)))]
    seen = np.stack([features(file.path, config) for file in chosen])  # [files, 2048]
    batches = [{"bytes": seen[start : start + BATCH]} for start in range(0, len(seen), BATCH)]
    session, reference = candidate.session(), candidate.reference_session()
    got = np.concatenate([session.run(None, feed)[0] for feed in batches])
    expected = np.concatenate([reference.run(None, feed)[0] for feed in batches])
    answers = [config.labels[index] for index in got.argmax(axis=1)]
    right = [answer == file.label for answer, file in zip(answers, chosen, strict=True)]
    agreement = float(top1_agreement(expected, got).mean())
    return FileScore(float(np.mean(right)), agreement, len(chosen), len({file.label for file in chosen}))
