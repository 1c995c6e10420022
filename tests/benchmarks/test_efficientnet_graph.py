"""The convolution network against a float64 forward pass written with loops over pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.models.builders.efficientnet import NORM_EPSILON, Stage, build_efficientnet, same_padding
from benchmarks.models.candidate import open_session

STAGES = (Stage(1, 3, 1), Stage(2, 5, 2))
SIZE = 9
BLOCKS = ((6, 6, 4, 3, 1), (4, 8, 5, 5, 2), (5, 10, 5, 5, 1))
"""For each block: channels in, expanded, out, kernel, stride. Only the last has a shortcut."""

ROUNDING = 2e-6
"""Of the largest logit: sixteen float32 epsilons (1.2e-7), for ten layers whose values are clipped at 6."""

Weights = dict[str, np.ndarray[Any, Any]]
Array = np.ndarray[Any, Any]


@pytest.fixture
def weights() -> Weights:
    random = np.random.default_rng(0)
    weights: Weights = {"_conv_stem.weight": random.normal(size=(6, 3, 3, 3))}
    norms = {"_bn0": 6, "_bn1": 12}
    for index, (before, inside, after, kernel, _) in enumerate(BLOCKS):
        p = f"_blocks.{index}."
        if inside != before:
            weights[p + "_expand_conv.weight"] = random.normal(size=(inside, before, 1, 1))
            norms[p + "_bn0"] = inside
        weights[p + "_depthwise_conv.weight"] = random.normal(size=(inside, 1, kernel, kernel))
        weights[p + "_project_conv.weight"] = random.normal(size=(after, inside, 1, 1))
        norms |= {p + "_bn1": inside, p + "_bn2": after}
    weights["_conv_head.weight"] = random.normal(size=(12, BLOCKS[-1][2], 1, 1))
    for name, channels in norms.items():
        weights[name + ".weight"] = random.normal(size=channels) * 4  # enough for Clip to cut at 6
        for part in ("bias", "running_mean"):
            weights[f"{name}.{part}"] = random.normal(size=channels)
        weights[name + ".running_var"] = random.uniform(1, 9, channels)
    weights |= {"_fc.weight": random.normal(size=(7, 12)), "_fc.bias": random.normal(size=7)}
    return {name: array.astype(np.float32) for name, array in weights.items()}


def convolved(x: Array, kernel: Array, stride: int) -> Array:
    """ "Same" convolution of [C, H, W]; one input channel in the kernel means depthwise."""
    side = kernel.shape[2]
    out = -(-x.shape[1] // stride)
    missing = max((out - 1) * stride + side - x.shape[1], 0)
    before = missing // 2
    padded = np.pad(x, ((0, 0), (before, missing - before), (before, missing - before)))
    result = np.zeros((len(kernel), out, out))
    for channel, row, column in np.ndindex(result.shape):
        patch = padded[:, row * stride : row * stride + side, column * stride : column * stride + side]
        seen = patch[channel : channel + 1] if kernel.shape[1] == 1 and len(x) == len(kernel) else patch
        result[channel, row, column] = (seen * kernel[channel]).sum()
    return result


def forward(weights: Weights, image: Array) -> Array:
    """Logits float64 [classes] of one image [3, H, W]."""
    w = {name: array.astype(np.float64) for name, array in weights.items()}

    def norm(x: Array, name: str) -> Array:
        part = {key: w[f"{name}.{key}"][:, None, None] for key in ("weight", "bias", "running_mean", "running_var")}
        unit = (x - part["running_mean"]) / np.sqrt(part["running_var"] + NORM_EPSILON)
        return unit * part["weight"] + part["bias"]

    x = norm(convolved(image.astype(np.float64), w["_conv_stem.weight"], 2), "_bn0").clip(0, 6)
    for index, (before, inside, after, _, stride) in enumerate(BLOCKS):
        p, entering = f"_blocks.{index}.", x
        if inside != before:
            x = norm(convolved(x, w[p + "_expand_conv.weight"], 1), p + "_bn0").clip(0, 6)
        x = norm(convolved(x, w[p + "_depthwise_conv.weight"], stride), p + "_bn1").clip(0, 6)
        x = norm(convolved(x, w[p + "_project_conv.weight"], 1), p + "_bn2")
        x = x + entering if before == after and stride == 1 else x
    x = norm(convolved(x, w["_conv_head.weight"], 1), "_bn1").clip(0, 6)
    logits: Array = w["_fc.weight"] @ x.mean(axis=(1, 2)) + w["_fc.bias"]
    return logits


def error(weights: Weights, used: Weights) -> float:
    images = np.random.default_rng(1).normal(size=(2, 3, SIZE, SIZE)).astype(np.float32)
    expected = np.stack([forward(weights, image) for image in images])
    session = open_session(build_efficientnet(used, STAGES, size=SIZE).SerializeToString())
    (logits,) = session.run(["logits"], {"input": images})
    return float(np.abs(logits - expected).max() / np.abs(expected).max())


def test_logits_equal_the_reference(weights: Weights) -> None:
    assert error(weights, weights) < ROUNDING


@pytest.mark.parametrize("name", ["_conv_stem.weight", "_blocks.1._bn1.running_var", "_blocks.2._project_conv.weight"])
def test_a_wrong_weight_is_noticed(weights: Weights, name: str) -> None:
    assert error(weights, weights | {name: weights[name] * np.float32(1.01)}) > 10 * ROUNDING


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "pads", "out"),
    [
        (224, 3, 2, [0, 0, 1, 1], 112),
        (112, 3, 1, [1, 1, 1, 1], 112),
        (56, 5, 2, [1, 1, 2, 2], 28),
        (7, 5, 1, [2, 2, 2, 2], 7),
        (9, 3, 2, [1, 1, 1, 1], 5),
        (14, 1, 1, [0, 0, 0, 0], 14),
    ],
)
def test_same_padding(size: int, kernel: int, stride: int, pads: list[int], out: int) -> None:
    assert same_padding(size, kernel, stride) == (pads, out)
