"""Four tiny models with the shapes of real ones, in any float type.

Weights are scaled so that activations stay near one; every model has a K somewhere that no block size divides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from graphs import graph, model, node, value

VOCABULARY, WIDTH, HIDDEN = 60, 40, 72


class _Draw:
    """Random weights of one type."""

    def __init__(self, dtype: Any, seed: int) -> None:
        self._dtype, self._rng = dtype, np.random.default_rng(seed)

    def matrix(self, k: int, n: int) -> np.ndarray:
        """[K, N], so that a product with it keeps the size of its input."""
        return (self._rng.standard_normal((k, n)) / k**0.5).astype(self._dtype)

    def filters(self, *shape: int) -> np.ndarray:
        return (self._rng.standard_normal(shape) / np.prod(shape[1:]) ** 0.5).astype(self._dtype)

    def vector(self, size: int, *, around: float = 0.0) -> np.ndarray:
        return (around + self._rng.uniform(-0.3, 0.3, size)).astype(self._dtype)


def mlp(dtype: Any = np.float32, *, seed: int = 0) -> onnx.ModelProto:
    """Two Gemms, one of them with a transposed weight, and a classifier; opset 17."""
    draw = _Draw(dtype, seed)
    weights = {
        "w1": draw.matrix(75, HIDDEN),
        "b1": draw.vector(HIDDEN),
        "w2": np.ascontiguousarray(draw.matrix(HIDDEN, HIDDEN).T),
        "b2": draw.vector(HIDDEN),
        "w3": draw.matrix(HIDDEN, 16),
    }
    nodes = [
        node("Gemm", ["X", "w1", "b1"], ["h1"], name="/fc1"),
        node("Relu", ["h1"], ["r1"]),
        node("Gemm", ["r1", "w2", "b2"], ["h2"], name="/fc2", transB=1),
        node("Relu", ["h2"], ["r2"]),
        node("MatMul", ["r2", "w3"], ["logits"], name="/classifier"),
    ]
    inputs, outputs = [value("X", ["batch", 75], dtype)], [value("logits", ["batch", 16], dtype)]
    return model(graph(nodes, inputs, outputs, weights), opset=17)


def transformer(dtype: Any = np.float32, *, seed: int = 0) -> onnx.ModelProto:
    """One pre-norm block of one attention head over an embedding that the language head shares; opset 17."""
    draw = _Draw(dtype, seed)
    weights = {
        "table": draw.matrix(WIDTH, VOCABULARY).T * np.asarray(4, dtype),
        "g1": draw.vector(WIDTH, around=1),
        "g2": draw.vector(WIDTH, around=1),
        **{name: draw.matrix(WIDTH, WIDTH) for name in ("wq", "wk", "wv", "wo")},
        "up": draw.matrix(WIDTH, HIDDEN),
        "down": draw.matrix(HIDDEN, WIDTH),
        "scale": np.asarray(WIDTH**-0.5, dtype),
    }
    nodes = [
        node("Gather", ["table", "input_ids"], ["x"], name="/embed"),
        node("LayerNormalization", ["x", "g1"], ["n1"], name="/norm1"),
        *(node("MatMul", ["n1", f"w{part}"], [part], name=f"/attention/{part}") for part in "qkv"),
        node("Transpose", ["k"], ["kt"], perm=[0, 2, 1]),
        node("MatMul", ["q", "kt"], ["dots"], name="/attention/dots"),
        node("Mul", ["dots", "scale"], ["scaled"]),
        node("Softmax", ["scaled"], ["weights"], axis=-1),
        node("MatMul", ["weights", "v"], ["mixed"], name="/attention/mix"),
        node("MatMul", ["mixed", "wo"], ["o"], name="/attention/o"),
        node("Add", ["x", "o"], ["x2"]),
        node("LayerNormalization", ["x2", "g2"], ["n2"], name="/norm2"),
        node("MatMul", ["n2", "up"], ["u"], name="/mlp/up"),
        node("Relu", ["u"], ["r"]),
        node("MatMul", ["r", "down"], ["d"], name="/mlp/down"),
        node("Add", ["x2", "d"], ["x3"]),
        node("Transpose", ["table"], ["head"], perm=[1, 0]),
        node("MatMul", ["x3", "head"], ["logits"], name="/head"),
    ]
    inputs = [value("input_ids", ["batch", "length"], np.int64)]
    return model(graph(nodes, inputs, [value("logits", ["batch", "length", VOCABULARY], dtype)], weights), opset=17)


def conv_net(dtype: Any = np.float32, *, seed: int = 0) -> onnx.ModelProto:
    """Conv + BatchNormalization, a squeeze-and-excite block, a classifier. bfloat16 convolutions need opset 22."""
    draw = _Draw(dtype, seed)
    channels = 40
    weights = {
        "stem": draw.filters(channels, 3, 3, 3),
        "deep": draw.filters(channels, channels, 3, 3),
        **{name: draw.vector(channels, around=around) for name, around in (("s", 1), ("b", 0), ("m", 0), ("v", 1))},
        "squeeze": draw.filters(32, channels, 1, 1),
        "squeeze_b": draw.vector(32),
        "excite": draw.filters(channels, 32, 1, 1),
        "excite_b": draw.vector(channels),
        "classes": np.ascontiguousarray(draw.matrix(channels, 28).T),
        "classes_b": draw.vector(28),
    }
    nodes = [
        node("Conv", ["image", "stem"], ["c1"], name="/stem", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("BatchNormalization", ["c1", "s", "b", "m", "v"], ["n1"], name="/norm"),
        node("Relu", ["n1"], ["r1"]),
        node("Conv", ["r1", "deep"], ["c2"], name="/deep", pads=[1, 1, 1, 1]),
        node("GlobalAveragePool", ["c2"], ["pooled"]),
        node("Conv", ["pooled", "squeeze", "squeeze_b"], ["sq"], name="/squeeze"),
        node("Relu", ["sq"], ["sr"]),
        node("Conv", ["sr", "excite", "excite_b"], ["ex"], name="/excite"),
        node("Sigmoid", ["ex"], ["gate"]),
        node("Mul", ["c2", "gate"], ["gated"]),
        node("GlobalAveragePool", ["gated"], ["features"]),
        node("Flatten", ["features"], ["flat"]),
        node("Gemm", ["flat", "classes", "classes_b"], ["logits"], name="/classifier", transB=1),
    ]
    inputs, outputs = [value("image", ["batch", 3, 16, 16], dtype)], [value("logits", ["batch", 28], dtype)]
    opset = 22 if np.dtype(dtype) == ml_dtypes.bfloat16 else 17
    return model(graph(nodes, inputs, outputs, weights), opset=opset)


def branching(dtype: Any = np.float32, *, seed: int = 0) -> onnx.ModelProto:
    """An If over weights of its own and one of the outer scope that both branches share; opset 16."""
    draw = _Draw(dtype, seed)
    branches = {
        f"{name}_branch": graph(
            [
                node("MatMul", ["h", "own"], [f"{name}_h"], name=f"/{name}/own"),
                node("MatMul", [f"{name}_h", "shared"], [name], name=f"/{name}/shared"),
            ],
            [],
            [value(name, ["batch", WIDTH], dtype)],
            {"own": draw.matrix(HIDDEN, HIDDEN)},
            name=name,
        )
        for name in ("then", "else")
    }
    nodes = [
        node("MatMul", ["X", "w"], ["h"], name="/first"),
        node("ReduceSum", ["X"], ["sum"], keepdims=0),
        node("Greater", ["sum", "zero"], ["positive"]),
        node("If", ["positive"], ["Y"], name="/if", **branches),
    ]
    weights = {
        "w": draw.matrix(75, HIDDEN),
        "shared": draw.matrix(HIDDEN, WIDTH),
        "zero": np.asarray(0, dtype),
    }
    inputs, outputs = [value("X", ["batch", 75], dtype)], [value("Y", ["batch", WIDTH], dtype)]
    return model(graph(nodes, inputs, outputs, weights), opset=16)


TINY_MODELS: dict[str, Callable[..., onnx.ModelProto]] = {
    "mlp": mlp,
    "transformer": transformer,
    "conv_net": conv_net,
    "branching": branching,
}


def feeds_of(proto: onnx.ModelProto, *, seed: int = 0, batch: int = 3, length: int = 7) -> dict[str, np.ndarray]:
    """Inputs for one of these models: token ids, or normal numbers in the model's float type (bfloat16: float32)."""
    rng = np.random.default_rng(seed)
    feeds = {}
    for item in proto.graph.input:
        kind = item.type.tensor_type
        sizes = {"batch": batch, "length": length}
        shape = [sizes.get(dim.dim_param) or dim.dim_value for dim in kind.shape.dim]
        if kind.elem_type == onnx.TensorProto.INT64:
            feeds[item.name] = rng.integers(0, VOCABULARY, shape)
        else:
            half = kind.elem_type == onnx.TensorProto.FLOAT16
            feeds[item.name] = rng.standard_normal(shape).astype(np.float16 if half else np.float32)
    return feeds
