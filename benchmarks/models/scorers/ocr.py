"""PP-OCR: lines read without a mistake, upside-down lines recognised, text found on a page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from ..candidate import Candidate, Score
from ..metrics import edit_distance
from ..text_lines import LineArtist, classifier_input, page, recognizer_input
from ..texts import grimm_tales, words

LINES = 400
TURNED_LINES = 300
TURNED_SEED = 7
PAGES = 4
WORDS_ON_A_PAGE = 48
IS_TEXT = 0.3
"""Probability from which a pixel counts as text, as in the published pipeline."""

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class LineScore(Score):
    """Share of lines read exactly, and errors per character, on easy (clean) and hard lines."""

    clean_exact: float
    clean_character_errors: float
    hard_exact: float
    hard_character_errors: float
    lines: int


@dataclass(frozen=True, slots=True)
class OrientationScore(Score):
    """Share classified right: of both, of upright lines, of lines turned by 180 degrees."""

    accuracy: float
    upright: float
    turned: float
    lines: int


@dataclass(frozen=True, slots=True)
class DetectionScore(Score):
    """Pixels called text against the boxes of the lines drawn.

    The model marks the core of a line and leaves its rim out, so the recall of the float model is about 0.5.
    """

    precision: float
    recall: float
    pages: int


def lines(candidate: Candidate) -> LineScore:
    """Read easy and hard lines; `limit` counts lines of each kind."""
    session, characters = candidate.session(), alphabet(candidate)
    vocabulary, count = words(grimm_tales(candidate.folder)), candidate.at_most(LINES)
    exact, errors = [], []
    for hard in (False, True):
        artist = LineArtist(vocabulary, seed=int(hard))
        right = wrong = length = 0
        for _ in range(count):
            text = artist.text(2, 4)
            read = decode(_run(session, recognizer_input(artist.picture(text, hard=hard)))[0], characters)
            right += read == text
            wrong += edit_distance(text, read)
            length += len(text)
        exact.append(right / count)
        errors.append(wrong / length)
    return LineScore(exact[0], errors[0], exact[1], errors[1], count)


def orientation(candidate: Candidate) -> OrientationScore:
    """Classify lines as they are and upside down; `limit` counts lines."""
    session, count = candidate.session(), candidate.at_most(TURNED_LINES)
    artist = LineArtist(words(grimm_tales(candidate.folder)), seed=TURNED_SEED)
    right = [0, 0]
    for _ in range(count):
        image = artist.picture(artist.text(4, 4), hard=False)
        for turned, seen in enumerate((image, image.rotate(180))):
            right[turned] += int(_run(session, classifier_input(seen))[0].argmax() == turned)
    upright, upside_down = right[0] / count, right[1] / count
    return OrientationScore((upright + upside_down) / 2, upright, upside_down, count)


def detection(candidate: Candidate) -> DetectionScore:
    """Find the text on printed pages; `limit` counts pages."""
    session, count = candidate.session(), candidate.at_most(PAGES)
    vocabulary = words(grimm_tales(candidate.folder))
    hits = called = drawn = 0
    for number in range(count):
        printed = page(vocabulary[number * WORDS_ON_A_PAGE :])
        found = _run(session, printed.pixels)[0, 0] > IS_TEXT
        hits += int((found & printed.text).sum())
        called += int(found.sum())
        drawn += int(printed.text.sum())
    return DetectionScore(hits / max(called, 1), hits / drawn, count)


def alphabet(candidate: Candidate) -> list[str]:
    """What each output class stands for: class 0 is the blank between characters, the last one a space.

    Read from the float model, because a quantizer may drop the metadata.
    """
    metadata = {entry.key: entry.value for entry in onnx.load(candidate.reference).metadata_props}
    return ["", *metadata["character"].split("\n"), " "]


def decode(probabilities: Array, characters: list[str]) -> str:
    """Greedy CTC: best class at each step [steps, classes], repeats merged, blanks ("") gone."""
    best = probabilities.argmax(axis=-1)
    changed = np.concatenate([[True], best[1:] != best[:-1]])
    return "".join(characters[index] for index in best[changed])


def _run(session: Any, pixels: Array) -> Array:
    output: Array = session.run(None, {session.get_inputs()[0].name: pixels})[0]
    return output
