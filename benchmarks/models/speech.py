"""Speech for Silero: two recordings from the source archive of silero-vad, cut into frames.

The model hears 512 new samples at a time (32 ms at 16 kHz), after the last 64 of the frame before.
"""

from __future__ import annotations

import wave
from collections.abc import Iterator
from typing import Any

import numpy as np

from .folder import ModelFolder

RATE = 16_000
FRAME = 512
CONTEXT = 64
STATE = (2, 1, 128)
"""Hidden and cell state of the LSTM."""

Array = np.ndarray[Any, Any]


def evaluation_recording(folder: ModelFolder) -> Array:
    """One minute of talk with pauses: float32 [samples], -1..1."""
    return _read(folder, "silero_vad_source/tests/data/test.wav")


def calibration_recording(folder: ModelFolder) -> Array:
    """Nearly three minutes by other speakers: float32 [samples], -1..1."""
    return _read(folder, "silero_vad_source/examples/c++/aepyx.wav")


def frames(samples: Array) -> Iterator[Array]:
    """Whole frames with their context: float32 [1, 576] each."""
    padded = np.concatenate([np.zeros(CONTEXT, np.float32), samples])
    for start in range(0, len(samples) - FRAME + 1, FRAME):
        yield padded[None, start : start + CONTEXT + FRAME]


def feed(frame: Array, state: Array) -> dict[str, Array]:
    """The model's inputs for one frame [1, 576] and a state [2, 1, 128]."""
    return {"input": frame, "state": state, "sr": np.array(RATE, np.int64)}


def zero_state() -> Array:
    return np.zeros(STATE, np.float32)


def _read(folder: ModelFolder, relative: str) -> Array:
    with wave.open(str(folder.source(relative))) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (RATE, 1, 2), relative
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768
