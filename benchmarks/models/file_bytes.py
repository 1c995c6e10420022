"""Files of this machine for Magika: what it reads of each, and which ones to take.

No package has a collection of labelled files, so the suite takes what every machine has: system libraries and
documentation and the running Python. The file's ending is its label. Accuracies of two machines can
therefore differ by a point or two; on one machine they are reproducible.
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .folder import ModelFolder

ROOTS = ("/usr/lib", "/usr/share", "/usr/local/lib")
FILES_FOR_EACH_LABEL = 60
SMALLEST = 200
"""Bytes: a shorter file often has too little to tell its type by."""

ENDINGS_THAT_ARE_LABELS = (
    "cmake css csv gif go html ini java json lua pdf php png rst sql svg toml ttf wasm woff2 xml yaml zip"
)
OTHER_ENDINGS = (
    "gz:gzip ipynb:ipynb jpg:jpeg js:javascript md:markdown o:elf so:elf pl:perl pm:perl py:python "
    "pyc:pythonbytecode rb:ruby rs:rust sh:shell tex:latex ts:typescript whl:zip yml:yaml"
)
LABELS = {f".{label}": label for label in ENDINGS_THAT_ARE_LABELS.split()} | {
    f".{ending}": label for ending, label in (pair.split(":") for pair in OTHER_ENDINGS.split())
}
"""Magika's label for each ending that is taken."""

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class MagikaConfig:
    """How the model wants its bytes.

    Attributes:
        labels: the class of each output, [214].
        begin, end: how many bytes of the beginning and the end it sees.
        block: how many bytes are read at either side before white space is stripped.
        padding: the code for "no byte here", 256.
    """

    labels: tuple[str, ...]
    begin: int
    end: int
    block: int
    padding: int

    @classmethod
    def read(cls, folder: ModelFolder) -> MagikaConfig:
        raw = json.loads(folder.built("magika/config.min.json").read_text())
        return cls(
            labels=tuple(raw["target_labels_space"]),
            begin=raw["beg_size"],
            end=raw["end_size"],
            block=raw["block_size"],
            padding=raw["padding_token"],
        )


@dataclass(frozen=True, slots=True)
class LabelledFile:
    path: Path
    label: str


def features(path: Path, config: MagikaConfig) -> Array:
    """What the model sees of a file: int32 [begin + end], padded in the middle."""
    size = path.stat().st_size
    block = min(config.block, size)
    with path.open("rb") as file:
        first = file.read(block).lstrip()[: config.begin]
        file.seek(size - block)
        last = file.read(block).rstrip()[-config.end :]
    seen = np.full(config.begin + config.end, config.padding, np.int32)
    seen[: len(first)] = np.frombuffer(first, np.uint8)
    seen[len(seen) - len(last) :] = np.frombuffer(last, np.uint8)
    return seen


def evaluation_files(config: MagikaConfig) -> list[LabelledFile]:
    """The first 60 of each label's shuffled files."""
    found = _shuffled_files(config)
    return [file for label in found for file in found[label][:FILES_FOR_EACH_LABEL]]


def calibration_files(config: MagikaConfig) -> Iterator[LabelledFile]:
    """Files that are not evaluated, the labels taking turns; rare labels have none."""
    found = _shuffled_files(config)
    rest = [found[label][FILES_FOR_EACH_LABEL:] for label in found]
    for turn in range(max(map(len, rest), default=0)):
        yield from (files[turn] for files in rest if turn < len(files))


def _shuffled_files(config: MagikaConfig) -> dict[str, list[LabelledFile]]:
    """All usable files by label, in an order that depends on their paths only."""
    found: dict[str, list[LabelledFile]] = defaultdict(list)
    for root in (*ROOTS, f"{sys.prefix}/lib"):
        for folder, _, names in os.walk(root):
            for path in (Path(folder, name) for name in names):
                label = LABELS.get(path.suffix.lower())
                if label in config.labels and _usable(path):
                    found[label].append(LabelledFile(path, label))
    draw = random.Random(0)
    for label in sorted(found):
        found[label].sort(key=lambda file: file.path)
        draw.shuffle(found[label])
    return {label: found[label] for label in sorted(found)}


def _usable(path: Path) -> bool:
    try:
        return not path.is_symlink() and path.stat().st_size >= SMALLEST and os.access(path, os.R_OK)
    except OSError:
        return False
