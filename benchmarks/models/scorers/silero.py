"""Silero: the probability of speech, frame after frame, against the float model's.

Each model carries its own state through the recording, as it would in use: errors may add up, and the score
shows it if they do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..candidate import Candidate, Score
from ..speech import evaluation_recording, feed, frames, zero_state

IS_SPEECH = 0.5
"""The package's own threshold."""


@dataclass(frozen=True, slots=True)
class SpeechScore(Score):
    """Against the float model.

    Attributes:
        mean_difference, worst_difference: of the probabilities, absolute.
        agreement: share of frames with the same decision.
        speech: share of frames that the candidate calls speech.
    """

    mean_difference: float
    worst_difference: float
    agreement: float
    speech: float
    frames: int


def speech(candidate: Candidate) -> SpeechScore:
    """Listen to the evaluation recording (1,875 frames); `limit` counts frames from its start."""
    recording = list(frames(evaluation_recording(candidate.folder)))
    heard = recording[: candidate.at_most(len(recording))]
    expected, got = _listen(candidate.reference_session(), heard), _listen(candidate.session(), heard)
    difference, calls = np.abs(expected - got), got > IS_SPEECH
    return SpeechScore(
        mean_difference=float(difference.mean()),
        worst_difference=float(difference.max()),
        agreement=float((calls == (expected > IS_SPEECH)).mean()),
        speech=float(calls.mean()),
        frames=len(heard),
    )


def _listen(session: Any, heard: list[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """Probabilities of speech [frames], the state handed on from frame to frame."""
    state, probabilities = zero_state(), []
    for frame in heard:
        probability, state = session.run(["output", "stateN"], feed(frame, state))
        probabilities.append(probability[0, 0])
    return np.array(probabilities)
