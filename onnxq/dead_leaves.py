"""Dead leaves: pictures of nothing, with the statistics that convolutional networks were trained on.

Natural images are objects that hide one another: sharp edges between smooth or textured regions, energy falling with
frequency, channels that mostly agree. A picture here is a background of 1/f^slope noise, covered by random ellipses
and boxes whose sizes follow a power law, each with its own colour and share of texture. Nothing is copied from any
picture; everything follows from a few numbers and a seed.

Source of the model: A. Lee, D. Mumford, J. Huang, "Occlusion models for natural images", IJCV 41, 2001.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from onnxq.affine import FloatArray

__all__ = ["Look", "mutated", "paint", "random_look"]

_LEAST, _MOST_LEAVES = 1, 60
_SMALLEST, _LARGEST = 0.03, 0.5
"""Half the extent of a leaf, as a share of the picture's."""


@dataclass(frozen=True, slots=True)
class Look:
    """The numbers that a picture follows from.

    Attributes:
        seed: of shapes, colours and phases.
        slope: amplitude of texture falls as 1 / frequency^slope.
        leaves: shapes painted over the background.
        texture: strength of texture against flat colour, 0..1.
        saturation: how much channels differ, 0..1.
        contrast: standard deviation of the picture.
        brightness: its mean, in standard deviations.
        tint: mean of each channel on top of that, in standard deviations.
    """

    seed: int
    slope: float
    leaves: int
    texture: float
    saturation: float
    contrast: float
    brightness: float
    tint: tuple[float, ...]


def random_look(rng: np.random.Generator, *, channels: int, contrast: float, brightness: float) -> Look:
    """Any look whose contrast and brightness lie around the given ones."""
    return Look(
        seed=int(rng.integers(1 << 31)),
        slope=float(rng.uniform(0.5, 2.0)),
        leaves=int(rng.integers(_LEAST, _MOST_LEAVES)),
        texture=float(rng.uniform(0.1, 0.9)),
        saturation=float(rng.uniform(0.0, 0.7)),
        contrast=contrast * float(np.exp(rng.normal(0, 0.35))),
        brightness=brightness + float(rng.normal(0, 0.4)),
        tint=tuple(float(value) for value in rng.normal(0, 0.15, channels)),
    )


def mutated(look: Look, rng: np.random.Generator) -> Look:
    """A look nearby: the same shapes more often than not, every number a little off."""
    return replace(
        look,
        seed=look.seed if rng.random() < 0.6 else int(rng.integers(1 << 31)),
        slope=float(np.clip(look.slope + rng.normal(0, 0.2), 0.2, 2.5)),
        leaves=int(np.clip(look.leaves + rng.normal(0, 8), _LEAST, _MOST_LEAVES)),
        texture=float(np.clip(look.texture + rng.normal(0, 0.15), 0, 1)),
        saturation=float(np.clip(look.saturation + rng.normal(0, 0.1), 0, 1)),
        contrast=look.contrast * float(np.exp(rng.normal(0, 0.2))),
        brightness=look.brightness + float(rng.normal(0, 0.2)),
        tint=tuple(float(value + rng.normal(0, 0.1)) for value in look.tint),
    )


def paint(look: Look, shape: tuple[int, ...]) -> FloatArray:
    """The picture: float32 [1, channels, height, width], or [1, channels, length] for signals.

    Args:
        look: what it looks like.
        shape: with a batch of one; one or two spatial axes.
    """
    rng = np.random.default_rng(look.seed)
    channels, space = shape[1], shape[2:]
    picture = _coloured(rng, look, channels, space)
    if len(space) == 2:
        texture = _coloured(rng, look, channels, space)
        for _ in range(look.leaves):
            box, leaf = _leaf(rng, space)
            shared = rng.normal(0, 1) * np.sqrt(1 - look.saturation)
            colour = shared + rng.normal(0, 1, (channels, 1)) * np.sqrt(look.saturation)
            strength = look.texture * rng.random()
            seen = picture[:, *box]
            seen[:, leaf] = (1 - strength) * colour + strength * texture[:, *box][:, leaf]
    picture -= picture.mean()
    picture /= max(float(picture.std()), 1e-6)
    level = look.brightness + np.reshape(look.tint, (channels, *[1] * len(space)))
    return np.asarray((picture + level) * look.contrast, dtype=np.float32)[None]


def _coloured(rng: np.random.Generator, look: Look, channels: int, space: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Noise of unit variance whose channels agree up to the saturation: [channels, *space]."""
    shared = _noise(rng, look.slope, space) * np.sqrt(1 - look.saturation)
    own = np.stack([_noise(rng, look.slope, space) for _ in range(channels)]) * np.sqrt(look.saturation)
    return np.asarray(shared + own)


def _noise(rng: np.random.Generator, slope: float, space: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """1 / f^slope noise of zero mean and unit variance."""
    frequencies = np.meshgrid(
        *[np.fft.fftfreq(size) * size for size in space[:-1]], np.fft.rfftfreq(space[-1]) * space[-1], indexing="ij"
    )
    radius = np.sqrt(sum(axis**2 for axis in frequencies))
    radius.flat[0] = np.inf  # no constant part
    spectrum = np.fft.rfftn(rng.standard_normal(space)) / radius**slope
    noise = np.fft.irfftn(spectrum, s=space, axes=range(len(space)))
    return np.asarray(noise / max(float(noise.std()), 1e-12))


def _leaf(rng: np.random.Generator, space: tuple[int, ...]) -> tuple[tuple[slice, slice], npt.NDArray[np.bool_]]:
    """One ellipse or box, turned, its size r drawn from 1 / r^3: where it lies, and its mask there."""
    size = 1 / np.sqrt(rng.uniform(1 / _LARGEST**2, 1 / _SMALLEST**2)) if rng.random() < 0.7 else _LARGEST / 2
    angle, stretch = rng.uniform(0, np.pi), np.exp(rng.normal(0, 0.5))
    reach = size * max(stretch, 1 / stretch) * np.sqrt(2)  # of a box's corner from its middle
    grid, box = [], []
    for extent in space:
        middle = rng.uniform(0, 1)
        first, end = (int(np.clip((middle + side * reach) * extent, 0, extent)) for side in (-1, 1))
        box.append(slice(first, end))
        grid.append((np.arange(first, end) + 0.5) / extent - middle)
    y, x = np.meshgrid(*grid, indexing="ij", sparse=True)
    u = (np.cos(angle) * x + np.sin(angle) * y) / (size * stretch)
    v = (np.cos(angle) * y - np.sin(angle) * x) * stretch / size
    inside = u**2 + v**2 < 1 if rng.random() < 0.5 else np.maximum(np.abs(u), np.abs(v)) < 1
    return (box[0], box[1]), inside
