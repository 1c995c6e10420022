"""Small random-weight models in the shapes of five years of networks: what exporters really write, at toy size.

Every builder takes a seed and returns a checked ModelProto whose activations stay near one. Free dims are called
"batch" and "length", vocabularies have VOCABULARY entries; `feeds` makes inputs for any of them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from zoo import decoders, recurrent, vision
from zoo.writer import VOCABULARY

__all__ = ["ZOO", "feeds"]

ZOO: dict[str, Callable[[], onnx.ModelProto]] = {
    "gpt2": decoders.gpt2,
    "gpt3_banded": decoders.gpt3_banded,
    "gopher_relative": decoders.gopher_relative,
    "palm_parallel": decoders.palm_parallel,
    "llama": decoders.llama,
    "llama_fused": decoders.llama_fused,
    "encoder_decoder": decoders.encoder_decoder,
    "resnet": vision.resnet,
    "mobilenet": vision.mobilenet,
    "unet": vision.unet,
    "lstm": recurrent.lstm,
}
"""Builders by name of the family."""


def feeds(proto: onnx.ModelProto, *, seed: int = 0, batch: int = 2, length: int = 9) -> dict[str, np.ndarray]:
    """One batch for a model of the zoo: token ids for integer inputs, normal numbers for the others."""
    rng = np.random.default_rng(seed)
    made: dict[str, np.ndarray] = {}
    for item in proto.graph.input:
        kind = item.type.tensor_type
        sizes = {"batch": batch, "length": length, "source": length + 2}
        shape = [sizes.get(dim.dim_param) or dim.dim_value for dim in kind.shape.dim]
        if kind.elem_type == onnx.TensorProto.INT64:
            made[item.name] = rng.integers(0, VOCABULARY, shape)
        else:
            made[item.name] = rng.standard_normal(shape).astype(np.float32)
    return made
