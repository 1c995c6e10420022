"""Writing a network of the zoo: the graph writer of the public suite, with random weights and the parts that
transformers share."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from benchmarks.models.graph import GraphWriter

__all__ = ["HEADS", "HEAD_DIM", "HIDDEN", "VOCABULARY", "WIDTH", "Writer"]

VOCABULARY, WIDTH, HEADS, HIDDEN = 64, 48, 4, 112
HEAD_DIM = WIDTH // HEADS


class Writer(GraphWriter):
    """A GraphWriter that draws its weights from one seed."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._rng = np.random.default_rng(seed)

    def normal(self, name: str, *shape: int, fan_in: int | None = None) -> str:
        """Normal weights; with `fan_in`, scaled so that a product with them keeps the size of its input."""
        scale = 1.0 if fan_in is None else fan_in**-0.5
        return self.initializer(name, (self._rng.standard_normal(shape) * scale).astype(np.float32))

    def around(self, name: str, size: int, centre: float = 0.0) -> str:
        """A vector of numbers within 0.3 of `centre`: a bias (0) or a gain (1)."""
        return self.initializer(name, (centre + self._rng.uniform(-0.3, 0.3, size)).astype(np.float32))

    def linear(self, x: str, name: str, k: int, n: int, *, bias: bool = False) -> str:
        """MatMul, and Add where there is a bias."""
        with self.scope(f"/{name}"):
            y = self.node("MatMul", [x, self.normal(f"{name}.weight", k, n, fan_in=k)])
            return self.node("Add", [y, self.around(f"{name}.bias", n)]) if bias else y

    def rms_norm(self, x: str, name: str, width: int = WIDTH) -> str:
        """x / sqrt(mean(x^2) + 1e-5) * gain, as exporters spell it out."""
        with self.scope(f"/{name}"):
            square = self.node("Mul", [x, x])
            mean = self.node("ReduceMean", [square], axes=[-1], keepdims=1)
            root = self.node("Sqrt", [self.node("Add", [mean, self.scalar("epsilon", 1e-5)])])
            return self.node("Mul", [self.node("Div", [x, root]), self.around(f"{name}.gain", width, 1.0)])

    def layer_norm(self, x: str, name: str) -> str:
        """LayerNormalization with gain and bias."""
        gain, bias = self.around(f"{name}.gain", WIDTH, 1.0), self.around(f"{name}.bias", WIDTH)
        with self.scope(f"/{name}"):
            return self.node("LayerNormalization", [x, gain, bias], axis=-1)

    def gelu(self, x: str) -> str:
        """x / 2 * (1 + erf(x / sqrt(2)))."""
        erf = self.node("Erf", [self.node("Div", [x, self.scalar("sqrt2", 2**0.5)])])
        return self.node(
            "Mul", [self.node("Mul", [x, self.node("Add", [erf, self.scalar("one", 1)])]), self.scalar("half", 0.5)]
        )

    def swiglu(self, x: str, name: str) -> str:
        """down(silu(gate(x)) * up(x))."""
        with self.scope(f"/{name}"):
            gate, up = self.linear(x, f"{name}.gate", WIDTH, HIDDEN), self.linear(x, f"{name}.up", WIDTH, HIDDEN)
            silu = self.node("Mul", [gate, self.node("Sigmoid", [gate])])
            return self.linear(self.node("Mul", [silu, up]), f"{name}.down", HIDDEN, WIDTH)

    def heads(self, x: str, count: int = HEADS) -> str:
        """[B, L, count * D] -> [B, count, L, D]."""
        split = self.node("Reshape", [x, self.integers(f"split_{count}", [0, 0, count, HEAD_DIM])])
        return self.node("Transpose", [split], perm=[0, 2, 1, 3])

    def merged(self, x: str) -> str:
        """[B, H, L, D] -> [B, L, H * D]."""
        rows = self.node("Transpose", [x], perm=[0, 2, 1, 3])
        return self.node("Reshape", [rows, self.integers("merge", [0, 0, WIDTH])])

    def constant(self, number: int) -> str:
        """An int64 scalar in a Constant node, as script exporters write them."""
        return self.node("Constant", [], value=numpy_helper.from_array(np.array(number, np.int64)))

    def length(self, x: str, axis: int = 1) -> str:
        """A dim as an int64 vector of one."""
        return self.node("Gather", [self.node("Shape", [x]), self.integers(f"axis_{axis}", [axis])], axis=0)

    def positions(self, x: str) -> str:
        """0 .. L-1 as int64 [L], for x [B, L, ..]."""
        limit = self.node("Squeeze", [self.length(x), self.integers("axis_0", [0])])
        return self.node("Range", [self.constant(0), limit, self.constant(1)])

    def causal_mask(self, x: str, *, band: int | None = None) -> str:
        """[L, L]: 0 where a token may look, -1e4 elsewhere; with a band, only at the last `band` tokens."""
        at = self.positions(x)
        distance = self.node(
            "Sub",
            [
                self.node("Unsqueeze", [at, self.integers("axis_1", [1])]),
                self.node("Unsqueeze", [at, self.integers("axis_0", [0])]),
            ],
        )
        hidden = self.node("Less", [distance, self.constant(0)])
        if band is not None:
            far = self.node("GreaterOrEqual", [distance, self.constant(band)])
            hidden = self.node("Or", [hidden, far])
        return self.node("Where", [hidden, self.scalar("mask", -1e4), self.scalar("zero", 0)])

    def attend(self, q: str, k: str, v: str, mask: str | None, bias: str | None = None) -> str:
        """Softmax(q k^T / sqrt(D) + bias + mask) v, over heads [B, H, L, D]."""
        dots = self.node("MatMul", [q, self.node("Transpose", [k], perm=[0, 1, 3, 2])])
        dots = self.node("Mul", [dots, self.scalar("head_scale", HEAD_DIM**-0.5)])
        for term in (bias, mask):
            dots = dots if term is None else self.node("Add", [dots, term])
        return self.node("MatMul", [self.node("Softmax", [dots], axis=-1), v])

    def finished(
        self, inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto], *, domains: tuple[str, ...] = ()
    ) -> onnx.ModelProto:
        """The checked model."""
        model = self.model("zoo", inputs, outputs)
        model.opset_import.extend(helper.make_opsetid(domain, 1) for domain in domains)
        onnx.checker.check_model(model)
        return model
