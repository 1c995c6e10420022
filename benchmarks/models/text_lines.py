"""Pictures of printed lines and pages for the OCR models, drawn from words of a text.

Easy lines are dark letters on a light ground. Hard ones are also turned, shrunk, blurred and noisy: that is
where a quantized recognizer first loses against the float one.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import require

HEIGHT = 48
"""Lines are scaled to this height; the recognizer takes any width."""

CLASSIFIER_WIDTH = 192
"""The upside-down classifier takes one width; shorter lines are padded, longer ones squeezed."""

PAGE = 640
"""Side of a page for the detector."""

IMAGENET_MEAN, IMAGENET_DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])

Array = np.ndarray[Any, Any]


class LineArtist:
    """Draws lines; the same seed draws the same ones again."""

    def __init__(self, words: Sequence[str], seed: int) -> None:
        self._words = words
        self._draw = random.Random(seed)
        self._noise = np.random.RandomState(0)

    def text(self, fewest: int, most: int) -> str:
        """Consecutive words, `fewest` to `most` of them."""
        start = self._draw.randrange(len(self._words) - 5)
        count = fewest if fewest == most else self._draw.randint(fewest, most)
        return " ".join(self._words[start : start + count])

    def picture(self, text: str, *, hard: bool) -> Any:
        """A `PIL.Image` (RGB) of one line, as large as its text."""
        draw, image_module, font_module = self._draw, require("PIL.Image"), require("PIL.ImageFont")
        font = font_module.load_default(draw.choice([18, 22, 26, 32]))
        box = font.getbbox(text)
        image = image_module.new("L", (box[2] + 2 * 8, box[3] + 2 * 6), draw.randint(200, 255))
        pen = require("PIL.ImageDraw").Draw(image)
        pen.text((8, 6), text, font=font, fill=draw.randint(0, 90))
        return (self._worn(image) if hard else image).convert("RGB")

    def _worn(self, image: Any) -> Any:
        """Turn by up to 2 degrees, shrink to 45..80 %, blur and add noise."""
        draw, image_module, filters = self._draw, require("PIL.Image"), require("PIL.ImageFilter")
        bilinear = image_module.Resampling.BILINEAR
        image = image.rotate(draw.uniform(-2, 2), expand=True, fillcolor=230, resample=bilinear)
        width, height = image.size
        factor = draw.uniform(0.45, 0.8)
        image = image.resize((max(8, int(width * factor)), max(8, int(height * factor))), bilinear)
        image = image.filter(filters.GaussianBlur(draw.uniform(0.4, 1.0)))
        noisy = np.asarray(image, np.float32) + self._noise.normal(0, 14, image.size[::-1])
        return image_module.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def recognizer_input(image: Any) -> Array:
    """A line at height 48 and its own width: float32 [1, 3, 48, W], blue first, -1..1."""
    width, height = image.size
    scaled = max(16, round(HEIGHT * width / height))
    pixels = np.asarray(image.resize((scaled, HEIGHT), require("PIL.Image").Resampling.BILINEAR), np.float32)
    return _as_planes((pixels[:, :, ::-1] / 255 - 0.5) / 0.5)


def classifier_input(image: Any) -> Array:
    """A line at 48 x 192, padded with mid-grey (0 after scaling) on the right: float32 [1, 3, 48, 192]."""
    width, height = image.size
    scaled = min(CLASSIFIER_WIDTH, int(np.ceil(HEIGHT * width / height)))
    pixels = np.zeros((HEIGHT, CLASSIFIER_WIDTH, 3), np.float32)
    line = np.asarray(image.resize((scaled, HEIGHT)), np.float32)[:, :, ::-1]
    pixels[:, :scaled] = (line / 255 - 0.5) / 0.5
    return _as_planes(pixels)


@dataclass(frozen=True, slots=True)
class Page:
    """A white page with eight lines.

    Attributes:
        pixels: float32 [1, 3, 640, 640], the detector's input.
        text: bool [640, 640], True inside the boxes of the lines.
    """

    pixels: Array
    text: Array


def page(words: Sequence[str]) -> Page:
    """Set eight lines of five words each (every sixth word is left out)."""
    image = require("PIL.Image").new("RGB", (PAGE, PAGE), "white")
    pen, font = require("PIL.ImageDraw").Draw(image), require("PIL.ImageFont").load_default(24)
    text = np.zeros((PAGE, PAGE), bool)
    for row in range(8):
        line, corner = " ".join(words[row * 6 : row * 6 + 5]), (30, 30 + row * 70)
        pen.text(corner, line, font=font, fill="black")
        left, top, right, bottom = map(int, pen.textbbox(corner, line, font=font))
        text[top:bottom, left:right] = True
    pixels = np.asarray(image, np.float32)[:, :, ::-1] / 255
    return Page(_as_planes((pixels - IMAGENET_MEAN) / IMAGENET_DEVIATION), text)


def _as_planes(pixels: Array) -> Array:
    """[H, W, 3] -> float32 [1, 3, H, W]."""
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32)
