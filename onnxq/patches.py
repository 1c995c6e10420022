"""Patches: the inputs of a convolution as the rows of a matmul, one matmul for each group of channels.

A convolution is, in each group, patches [positions, C / group * kernel] @ filters [C / group * kernel, M / group]: the
filters as the survey reads them, [K, N], with the groups side by side. Neighbouring patches share most of their
values, so a fixed random part of the positions of a batch says as much as all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxq.affine import FloatArray

__all__ = ["POSITIONS", "Window", "patches", "window_of"]

POSITIONS = 4096
"""Positions looked at in one batch. A gram matrix of K = 1152 is regular from 1152 on; 64 batches give 262,144."""


@dataclass(frozen=True, slots=True)
class Window:
    """Where a convolution looks, in ONNX's words; one number per spatial axis.

    Attributes:
        kernel: extent of the filters.
        strides: between positions.
        dilations: between the values of one patch.
        pads: zeros before and after each axis; None where `auto_pad` decides by the image's size.
        lower: of an odd number of zeros, the larger part comes before (SAME_LOWER).
        group: groups of channels.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[tuple[int, int], ...] | None
    lower: bool
    group: int

    def padding(self, image: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
        """Zeros before and after each spatial axis of an image of this size."""
        if self.pads is not None:
            return self.pads
        found = []
        for size, kernel, stride, dilation in zip(image, self.kernel, self.strides, self.dilations, strict=True):
            total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
            less, more = total // 2, total - total // 2
            found.append((more, less) if self.lower else (less, more))
        return tuple(found)


def window_of(node: ir.Node, filters: tuple[int, ...]) -> Window:
    """The window of a Conv.

    Args:
        node: its attributes count.
        filters: shape [M, C / group, *kernel].
    """
    kernel = filters[2:]
    ones = [1] * len(kernel)
    given = node.attributes.get_ints("pads", ()) or [0] * (2 * len(kernel))
    mode = node.attributes.get_string("auto_pad", "NOTSET") or "NOTSET"
    pads = tuple(zip(given[: len(kernel)], given[len(kernel) :], strict=True))
    if mode == "VALID":
        pads = tuple((0, 0) for _ in kernel)
    return Window(
        kernel=kernel,
        strides=tuple(node.attributes.get_ints("strides", ()) or ones),
        dilations=tuple(node.attributes.get_ints("dilations", ()) or ones),
        pads=None if mode.startswith("SAME") else pads,
        lower=mode == "SAME_LOWER",
        group=node.attributes.get_int("group", 1) or 1,
    )


def patches(image: FloatArray, window: Window, *, seed: int, limit: int = POSITIONS) -> FloatArray:
    """Patches at some or all positions.

    Args:
        image: float32 [B, C, *spatial].
        window: of the convolution.
        seed: chooses the positions, where there are more than `limit`.
        limit: positions at most.
    Returns:
        float32 [group, positions, C / group * kernel], each row in the order of the filters.
    """
    batch, channels = image.shape[:2]
    spatial = len(window.kernel)
    padded = np.pad(image, ((0, 0), (0, 0), *window.padding(image.shape[2:])))
    axes = tuple(range(2, 2 + spatial))
    reach = tuple((kernel - 1) * step + 1 for kernel, step in zip(window.kernel, window.dilations, strict=True))
    view = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=axes)  # [B, C, *positions, *reach]
    steps = (*(slice(None, None, step) for step in (*window.strides, *window.dilations)),)
    view = np.moveaxis(view[(slice(None), slice(None), *steps)], 1, 1 + spatial)  # [B, *positions, C, *kernel]
    places = view.shape[: 1 + spatial]
    count = int(np.prod(places))
    chosen = _some(count, limit, seed)
    rows = view[np.unravel_index(chosen, places)].reshape(len(chosen), window.group, -1)
    assert rows.shape[2] * window.group == channels * int(np.prod(window.kernel)), (batch, channels)
    return np.ascontiguousarray(rows.transpose(1, 0, 2))


def _some(count: int, limit: int, seed: int) -> npt.NDArray[np.int64]:
    """Sorted indices below `count`: all, or `limit` drawn at random. Even steps would always meet the same columns."""
    if count <= limit:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, limit, replace=False))
