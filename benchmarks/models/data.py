"""Calibration data: generators of feeds, disjoint from everything that the scorers use.

Each function can be named as `benchmarks.models.data:FUNCTION`, takes no argument it needs, and starts afresh
on every call. A feed is a dict from input names to arrays, one run of the model. All read the
default model folder unless given another.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from .candidate import open_session
from .file_bytes import MagikaConfig, calibration_files, features
from .folder import ModelFolder
from .photos import calibration_photos, random_crops
from .scorers.minilm import REUTERS_TRAIN
from .scorers.ocr import WORDS_ON_A_PAGE
from .speech import calibration_recording, feed, frames, zero_state
from .text_lines import LineArtist, page, recognizer_input
from .texts import andersen_tales, grimm_tales, labelled_documents, words
from .tokens import BEGIN_OF_SEQUENCE, WINDOW, Feed, minilm_batches, smollm2_ids
from .tokens import windows as windows_of

FIRST_CALIBRATION_TOKEN = 20_000
"""Far behind the 8,192 tokens that the perplexity is measured on, in other tales."""


def smollm2_tales(windows: int = 64, folder: ModelFolder | None = None) -> Iterator[Feed]:
    """Windows of Grimm's tales from token 20,000 on: input_ids int64 [1, 256]."""
    folder = folder or ModelFolder.default()
    (ids,) = smollm2_ids(folder, [grimm_tales(folder)])
    for window in itertools.islice(windows_of(ids[FIRST_CALIBRATION_TOKEN:], WINDOW), windows):
        yield {"input_ids": np.concatenate([[BEGIN_OF_SEQUENCE], window])[None].astype(np.int64)}


def smollm2_kv_tales(windows: int = 64, folder: ModelFolder | None = None) -> Iterator[Feed]:
    """Feeds for the variant with a key/value cache: each window in two halves.

    The first half comes with an empty cache [1, 3, 0, 64], the second with what the float model cached.
    """
    folder = folder or ModelFolder.default()
    session = open_session(folder.built("smollm2-135m/smollm2_kv_fp32.onnx"))
    pasts = [value for value in session.get_inputs() if value.name != "input_ids"]
    presents = [value.name.replace("past_key_values", "present") for value in pasts]
    for whole in smollm2_tales(windows, folder):
        first, second = np.split(whole["input_ids"], 2, axis=1)
        empty = {value.name: np.zeros((1, value.shape[1], 0, value.shape[3]), np.float32) for value in pasts}
        start = {"input_ids": first, **empty}
        yield start
        cached = session.run(presents, start)
        yield {"input_ids": second, **dict(zip((value.name for value in pasts), cached, strict=True))}


def minilm_texts(documents: int = 64, batch_size: int = 8, folder: ModelFolder | None = None) -> Iterator[Feed]:
    """Reuters training documents that the probe is not trained on, padded in batches of like length.

    The batches are shuffled: whoever holds the last ones out for verification gets short and long documents.
    """
    folder = folder or ModelFolder.default()
    texts, _ = labelled_documents(folder, "reuters-r8-train")
    unused = np.random.RandomState(0).permutation(len(texts))[REUTERS_TRAIN : REUTERS_TRAIN + documents]
    batches = list(minilm_batches(folder, [texts[row] for row in unused], size=batch_size))
    for index in np.random.RandomState(0).permutation(len(batches)):
        yield batches[index].feed


def efficientnet_images(images: int = 64, folder: ModelFolder | None = None) -> Iterator[Feed]:
    """Random crops of the ten photos that are not evaluated: input float32 [1, 3, 224, 224]."""
    folder = folder or ModelFolder.default()
    for crop in random_crops(calibration_photos(folder), images, seed=0):
        yield {"input": crop}


def efficientnet_images_256(folder: ModelFolder | None = None) -> Iterator[Feed]:
    """The same with 256 crops."""
    return efficientnet_images(256, folder)


def ocr_lines(lines: int = 64, folder: ModelFolder | None = None) -> Iterator[Feed]:
    """Lines of Andersen's tales, easy and hard in turn: x float32 [1, 3, 48, W], every W its own."""
    folder = folder or ModelFolder.default()
    artist = LineArtist(words(andersen_tales(folder)), seed=2)
    for index in range(lines):
        yield {"x": recognizer_input(artist.picture(artist.text(2, 4), hard=index % 2 == 1))}


def ocr_pages(pages: int = 20, folder: ModelFolder | None = None) -> Iterator[Feed]:
    """Printed pages of Andersen's tales: x float32 [1, 3, 640, 640]."""
    vocabulary = words(andersen_tales(folder or ModelFolder.default()))
    for number in range(pages):
        yield {"x": page(vocabulary[number * WORDS_ON_A_PAGE :]).pixels}


def magika_files(files: int = 64, folder: ModelFolder | None = None) -> Iterator[Feed]:
    """Files of this machine that are not evaluated, labels in turn: bytes int32 [1, 2048]."""
    config = MagikaConfig.read(folder or ModelFolder.default())
    for file in itertools.islice(calibration_files(config), files):
        yield {"bytes": features(file.path, config)[None]}


def silero_audio(count: int = 256, folder: ModelFolder | None = None) -> Iterator[Feed]:
    """Frames spread over the other recording, each from silence: state is zero."""
    for frame in _spread_frames(count, folder or ModelFolder.default()):
        yield feed(frame, zero_state())


def silero_audio_with_state(count: int = 256, folder: ModelFolder | None = None) -> Iterator[Feed]:
    """Consecutive frames of the other recording, with the state that the float model has by then."""
    folder = folder or ModelFolder.default()
    session, state = open_session(folder.built("silero-vad/silero_vad.onnx")), zero_state()
    for frame in itertools.islice(frames(calibration_recording(folder)), count):
        heard = feed(frame, state)
        yield heard
        state = session.run(["stateN"], heard)[0]


def _spread_frames(count: int, folder: ModelFolder) -> Iterator[np.ndarray[Any, Any]]:
    every = list(frames(calibration_recording(folder)))
    yield from every[:: max(1, len(every) // count)][:count]
