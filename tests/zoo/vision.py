"""Convolutional networks: residual, inverted residual, and an hourglass with skips."""

from __future__ import annotations

import numpy as np
import onnx

from benchmarks.models.graph import float_tensor
from zoo.writer import Writer

__all__ = ["mobilenet", "resnet", "unet"]

_CLASSES = 28
_IMAGE = [float_tensor("image", ["batch", 3, 16, 16])]


def resnet(seed: int = 10) -> onnx.ModelProto:
    """Conv + BatchNormalization + Relu, a plain block and one that halves the image with a projected shortcut."""
    g = Writer(seed)
    x = g.node("Relu", [_conv_norm(g, "image", "stem", 3, 32, size=3)])
    for name, k, n, stride in (("layer1", 32, 32, 1), ("layer2", 32, 64, 2)):
        with g.scope(f"/{name}"):
            h = g.node("Relu", [_conv_norm(g, x, f"{name}.conv1", k, n, size=3, stride=stride)])
            h = _conv_norm(g, h, f"{name}.conv2", n, n, size=3)
            shortcut = x if k == n else _conv_norm(g, x, f"{name}.shortcut", k, n, size=1, stride=stride)
            x = g.node("Relu", [g.node("Add", [h, shortcut])])
    return _classified(g, x, 64)


def mobilenet(seed: int = 11) -> onnx.ModelProto:
    """Expand, depthwise, project; Clip to 6; a residual where the shape stays."""
    g = Writer(seed)
    x = _relu6(g, _conv_norm(g, "image", "stem", 3, 16, size=3, stride=2))
    for name, k, n in (("block1", 16, 24), ("block2", 24, 24)):
        with g.scope(f"/{name}"):
            wide = 4 * k
            h = _relu6(g, _conv_norm(g, x, f"{name}.expand", k, wide, size=1))
            h = _relu6(g, _conv_norm(g, h, f"{name}.depthwise", wide, wide, size=3, groups=wide))
            h = _conv_norm(g, h, f"{name}.project", wide, n, size=1)
            x = g.node("Add", [x, h]) if k == n else h
    return _classified(g, x, 24)


def unet(seed: int = 12) -> onnx.ModelProto:
    """Down by MaxPool, up by ConvTranspose and by Resize, joined with the skips by Concat."""
    g = Writer(seed)
    skips = []
    x, k = "image", 3
    for level, n in enumerate((16, 32)):
        x = g.node("Relu", [_conv(g, x, f"down.{level}", k, n, size=3)])
        skips.append((x, n))
        x, k = g.node("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2]), n
    x = g.node("Relu", [_conv(g, x, "middle", k, 48, size=3)])
    with g.scope("/up.0"):
        weight = g.normal("up.0.weight", 48, 32, 2, 2, fan_in=48)
        x = g.node("ConvTranspose", [x, weight, g.around("up.0.bias", 32)], kernel_shape=[2, 2], strides=[2, 2])
    x = g.node("Relu", [_conv(g, g.node("Concat", [x, skips[1][0]], axis=1), "join.0", 64, 32, size=3)])
    with g.scope("/up.1"):
        x = g.node("Resize", [x, "", g.initializer("twice", np.array([1, 1, 2, 2], np.float32))], mode="nearest")
    x = g.node("Relu", [_conv(g, g.node("Concat", [x, skips[0][0]], axis=1), "join.1", 48, 16, size=3)])
    y = _conv(g, x, "mask", 16, 4, size=1)
    g.node("Sigmoid", [y], output="mask")
    return g.finished(_IMAGE, [float_tensor("mask", ["batch", 4, 16, 16])])


def _conv(g: Writer, x: str, name: str, k: int, n: int, *, size: int) -> str:
    with g.scope(f"/{name}"):
        weight = g.normal(f"{name}.weight", n, k, size, size, fan_in=k * size * size)
        return g.node("Conv", [x, weight, g.around(f"{name}.bias", n)], pads=[size // 2] * 4, kernel_shape=[size] * 2)


def _conv_norm(g: Writer, x: str, name: str, k: int, n: int, *, size: int, stride: int = 1, groups: int = 1) -> str:
    """Conv without bias, then BatchNormalization."""
    with g.scope(f"/{name}"):
        weight = g.normal(f"{name}.weight", n, k // groups, size, size, fan_in=k // groups * size * size)
        y = g.node(
            "Conv", [x, weight], pads=[size // 2] * 4, kernel_shape=[size] * 2, strides=[stride] * 2, group=groups
        )
        gain, variance = g.around(f"{name}.gain", n, 1.0), g.around(f"{name}.variance", n, 1.0)
        shift, mean = g.around(f"{name}.shift", n), g.around(f"{name}.mean", n)
        return g.node("BatchNormalization", [y, gain, shift, mean, variance])


def _relu6(g: Writer, x: str) -> str:
    return g.node("Clip", [x, g.scalar("zero", 0), g.scalar("six", 6)])


def _classified(g: Writer, x: str, channels: int) -> onnx.ModelProto:
    flat = g.node("Flatten", [g.node("GlobalAveragePool", [x])])
    with g.scope("/classifier"):
        weight = g.normal("classifier.weight", _CLASSES, channels, fan_in=channels)
        g.node("Gemm", [flat, weight, g.around("classifier.bias", _CLASSES)], output="logits", transB=1)
    return g.finished(_IMAGE, [float_tensor("logits", ["batch", _CLASSES])])
