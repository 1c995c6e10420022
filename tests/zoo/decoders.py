"""Decoder language models, one builder a family, and an encoder-decoder. Two blocks each."""

from __future__ import annotations

import numpy as np
import onnx

from benchmarks.models.graph import float_tensor, int_tensor
from zoo.writer import HEAD_DIM, HEADS, HIDDEN, VOCABULARY, WIDTH, Writer

__all__ = [
    "encoder_decoder",
    "gopher_relative",
    "gpt2",
    "gpt3_banded",
    "llama",
    "llama_fused",
    "palm_parallel",
]

_BLOCKS = 2
_POSITIONS = 64
_KV_HEADS = 2
_TOKENS = [int_tensor("input_ids", ["batch", "length"])]
_LOGITS = [float_tensor("logits", ["batch", "length", VOCABULARY])]


def gpt2(seed: int = 0) -> onnx.ModelProto:
    """Learned positions, LayerNorm, GELU, biases; one fused qkv Gemm over flattened rows; a head tied to the table."""
    return _gpt(seed, bands=(None, None))


def gpt3_banded(seed: int = 1) -> onnx.ModelProto:
    """GPT-2's block, every other one with attention to the last four tokens only."""
    return _gpt(seed, bands=(None, 4))


def gopher_relative(seed: int = 2) -> onnx.ModelProto:
    """RMSNorm and relative positions: queries also meet projected sinusoids of the distance (as in Transformer-XL)."""
    g = Writer(seed)
    x = _embedded(g)
    mask, index = g.causal_mask(x), _distances(g, x)
    for block in range(_BLOCKS):
        name = f"layers.{block}"
        with g.scope(f"/{name}"):
            h = g.rms_norm(x, f"{name}.norm1")
            q, k, v = (g.heads(g.linear(h, f"{name}.{part}", WIDTH, WIDTH, bias=True)) for part in "qkv")
            mixed = g.merged(g.attend(q, k, v, mask, _relative_scores(g, q, index, name)))
            x = g.node("Add", [x, g.linear(mixed, f"{name}.o", WIDTH, WIDTH, bias=True)])
            h = g.linear(g.rms_norm(x, f"{name}.norm2"), f"{name}.up", WIDTH, HIDDEN, bias=True)
            x = g.node("Add", [x, g.linear(g.gelu(h), f"{name}.down", HIDDEN, WIDTH, bias=True)])
    return _own_head(g, g.rms_norm(x, "norm"))


def palm_parallel(seed: int = 3) -> onnx.ModelProto:
    """Attention and SwiGLU side by side over one norm, one key/value head for all, no biases; RoPE; a tied head."""
    g = Writer(seed)
    x = _embedded(g)
    mask, rotary = g.causal_mask(x), _rotary_tables(g, x)
    for block in range(_BLOCKS):
        name = f"layers.{block}"
        with g.scope(f"/{name}"):
            h = g.rms_norm(x, f"{name}.norm")
            q = g.heads(g.linear(h, f"{name}.q", WIDTH, WIDTH))
            k, v = (g.heads(g.linear(h, f"{name}.{part}", WIDTH, HEAD_DIM), 1) for part in "kv")
            mixed = g.merged(g.attend(_rotated(g, q, rotary), _rotated(g, k, rotary), v, mask))
            attention = g.linear(mixed, f"{name}.o", WIDTH, WIDTH)
            x = g.node("Add", [g.node("Add", [x, attention]), g.swiglu(h, f"{name}.mlp")])
    return _tied_head(g, g.rms_norm(x, "norm"))


def llama(seed: int = 4) -> onnx.ModelProto:
    """RMSNorm, RoPE, grouped key/value heads that are repeated, SwiGLU, a head of its own."""
    g = Writer(seed)
    x = _embedded(g)
    mask, rotary = g.causal_mask(x), _rotary_tables(g, x)
    for block in range(_BLOCKS):
        name = f"layers.{block}"
        with g.scope(f"/{name}"):
            h = g.rms_norm(x, f"{name}.norm1")
            q = _rotated(g, g.heads(g.linear(h, f"{name}.q", WIDTH, WIDTH)), rotary)
            k, v = (g.heads(g.linear(h, f"{name}.{p}", WIDTH, _KV_HEADS * HEAD_DIM), _KV_HEADS) for p in "kv")
            k, v = _repeated(g, _rotated(g, k, rotary)), _repeated(g, v)
            x = g.node("Add", [x, g.linear(g.merged(g.attend(q, k, v, mask)), f"{name}.o", WIDTH, WIDTH)])
            x = g.node("Add", [x, g.swiglu(g.rms_norm(x, f"{name}.norm2"), f"{name}.mlp")])
    return _own_head(g, g.rms_norm(x, "norm"))


def llama_fused(seed: int = 5) -> onnx.ModelProto:
    """The same as onnxruntime's tools write it, with its own attention and its norm over a skip."""
    g = Writer(seed)
    x = _embedded(g)
    mask = g.node("Unsqueeze", [g.causal_mask(x), g.integers("axes_01", [0, 1])])
    skip = x
    for block in range(_BLOCKS):
        name = f"layers.{block}"
        with g.scope(f"/{name}"):
            h = g.rms_norm(skip, f"{name}.norm1")
            q, k, v = (g.linear(h, f"{name}.{part}", WIDTH, WIDTH) for part in "qkv")
            inputs = [q, k, v, "", "", mask]
            mixed = g.node("MultiHeadAttention", inputs, domain="com.microsoft", num_heads=HEADS)
            o = g.linear(mixed, f"{name}.o", WIDTH, WIDTH)
            gain = g.around(f"{name}.norm2.gain", WIDTH, 1.0)
            h = g.node("SkipSimplifiedLayerNormalization", [skip, o, gain], domain="com.microsoft", epsilon=1e-5)
            skip = g.node("Add", [h, g.swiglu(h, f"{name}.mlp")])
    return _own_head(g, g.rms_norm(skip, "norm"), domains=("com.microsoft",))


def encoder_decoder(seed: int = 6) -> onnx.ModelProto:
    """An encoder block that sees everything, a decoder block that sees the past and, across, the encoder."""
    g = Writer(seed)
    table = g.normal("table", VOCABULARY, WIDTH)
    memory = g.node("Gather", [table, "source_ids"])
    with g.scope("/encoder"):
        h = g.layer_norm(memory, "encoder.norm1")
        memory = g.node("Add", [memory, _attention(g, h, h, "encoder.self", None)])
        memory = g.node("Add", [memory, _relu_mlp(g, g.layer_norm(memory, "encoder.norm2"), "encoder.mlp")])
    x = g.node("Gather", [table, "input_ids"])
    mask = g.causal_mask(x)
    with g.scope("/decoder"):
        h = g.layer_norm(x, "decoder.norm1")
        x = g.node("Add", [x, _attention(g, h, h, "decoder.self", mask)])
        h = g.layer_norm(x, "decoder.norm2")
        x = g.node("Add", [x, _attention(g, h, memory, "decoder.cross", None)])
        x = g.node("Add", [x, _relu_mlp(g, g.layer_norm(x, "decoder.norm3"), "decoder.mlp")])
    _logits(g, g.layer_norm(x, "norm"))
    return g.finished([int_tensor("source_ids", ["batch", "source"]), *_TOKENS], _LOGITS)


def _embedded(g: Writer, *, learned_positions: bool = False) -> str:
    x = g.node("Gather", [g.normal("wte", VOCABULARY, WIDTH), "input_ids"])
    if not learned_positions:
        return x
    return g.node("Add", [x, g.node("Gather", [g.normal("wpe", _POSITIONS, WIDTH), g.positions("input_ids")])])


def _gpt(seed: int, *, bands: tuple[int | None, ...]) -> onnx.ModelProto:
    """A block for each band of attention."""
    g = Writer(seed)
    x = _embedded(g, learned_positions=True)
    for block, band in enumerate(bands):
        with g.scope(f"/h.{block}"):
            x = _gpt_block(g, x, f"h.{block}", g.causal_mask(x, band=band))
    return _tied_head(g, g.layer_norm(x, "ln_f"))


def _gpt_block(g: Writer, x: str, name: str, mask: str) -> str:
    """Conv1D layers: rows flattened, one Gemm, rows restored."""
    h = _conv1d(g, g.layer_norm(x, f"{name}.ln_1"), f"{name}.attn.c_attn", WIDTH, 3 * WIDTH)
    q, k, v = (
        g.heads(g.node("Slice", [h, _bound(g, start), _bound(g, start + WIDTH), _bound(g, 2)]))
        for start in (0, WIDTH, 2 * WIDTH)
    )
    mixed = g.merged(g.attend(q, k, v, mask))
    x = g.node("Add", [x, _conv1d(g, mixed, f"{name}.attn.c_proj", WIDTH, WIDTH)])
    h = _conv1d(g, g.layer_norm(x, f"{name}.ln_2"), f"{name}.mlp.c_fc", WIDTH, HIDDEN)
    return g.node("Add", [x, _conv1d(g, g.gelu(h), f"{name}.mlp.c_proj", HIDDEN, WIDTH)])


def _bound(g: Writer, at: int) -> str:
    return g.integers(f"bound_{at}", [at])


def _conv1d(g: Writer, x: str, name: str, k: int, n: int) -> str:
    with g.scope(f"/{name}"):
        rows = g.node("Reshape", [x, g.integers(f"rows_{k}", [-1, k])])
        weight, bias = g.normal(f"{name}.weight", k, n, fan_in=k), g.around(f"{name}.bias", n)
        y = g.node("Gemm", [rows, weight, bias])
        shape = g.node("Concat", [g.length(x, 0), g.length(x, 1), g.integers(f"width_{n}", [n])], axis=0)
        return g.node("Reshape", [y, shape])


def _distances(g: Writer, x: str) -> str:
    """How far back each token looks, [L, L], 0 for the future."""
    at = g.positions(x)
    rows, columns = (g.node("Unsqueeze", [at, g.integers(f"axis_{axis}", [axis])]) for axis in (1, 0))
    return g.node("Max", [g.node("Sub", [rows, columns]), g.constant(0)])


def _relative_scores(g: Writer, q: str, index: str, name: str) -> str:
    """q [B, H, L, D] meets the projected sinusoid of each distance: [B, H, L, L]."""
    angles = np.arange(_POSITIONS)[:, None] * 10000.0 ** (-np.arange(0, WIDTH, 2) / WIDTH)
    sinusoids = g.initializer("sinusoids", np.concatenate([np.sin(angles), np.cos(angles)], 1).astype(np.float32))
    projected = g.linear(sinusoids, f"{name}.relative", WIDTH, WIDTH)  # [P, H * D]
    split = g.node("Reshape", [projected, g.integers("relative_split", [_POSITIONS, HEADS, HEAD_DIM])])
    scores = g.node("MatMul", [q, g.node("Transpose", [split], perm=[1, 2, 0])])  # [B, H, L, P]
    dims = [g.length(q, 0), g.length(q, 1), g.length(q, 2), g.length(q, 2)]
    wide = g.node("Expand", [index, g.node("Concat", dims, axis=0)])
    picked = g.node("GatherElements", [scores, wide], axis=3)
    return g.node("Mul", [picked, g.scalar("head_scale", HEAD_DIM**-0.5)])


def _rotary_tables(g: Writer, x: str) -> tuple[str, str]:
    angles = np.arange(_POSITIONS)[:, None] * 10000.0 ** (-np.arange(0, HEAD_DIM, 2) / HEAD_DIM)
    angles = np.concatenate([angles, angles], axis=1).astype(np.float32)
    at = g.positions(x)
    cosine = g.node("Gather", [g.initializer("cos", np.cos(angles)), at])
    return cosine, g.node("Gather", [g.initializer("sin", np.sin(angles)), at])


def _rotated(g: Writer, x: str, tables: tuple[str, str]) -> str:
    """x cos + rotate_half(x) sin, over [B, H, L, D]."""
    half = HEAD_DIM // 2
    axis = _bound(g, 3)
    first = g.node("Slice", [x, _bound(g, 0), _bound(g, half), axis])
    second = g.node("Slice", [x, _bound(g, half), _bound(g, HEAD_DIM), axis])
    turned = g.node("Concat", [g.node("Neg", [second]), first], axis=-1)
    return g.node("Add", [g.node("Mul", [x, tables[0]]), g.node("Mul", [turned, tables[1]])])


def _repeated(g: Writer, x: str) -> str:
    """Key/value heads repeated for the query heads that share them."""
    times = HEADS // _KV_HEADS
    apart = g.node("Unsqueeze", [x, g.integers("axis_2", [2])])
    copies = g.node("Concat", [apart] * times, axis=2)
    dims = [g.length(x, 0), g.integers("heads", [HEADS]), g.length(x, 2), g.integers("head_dim", [HEAD_DIM])]
    return g.node("Reshape", [copies, g.node("Concat", dims, axis=0)])


def _attention(g: Writer, x: str, memory: str, name: str, mask: str | None) -> str:
    q = g.heads(g.linear(x, f"{name}.q", WIDTH, WIDTH, bias=True))
    k, v = (g.heads(g.linear(memory, f"{name}.{part}", WIDTH, WIDTH, bias=True)) for part in "kv")
    return g.linear(g.merged(g.attend(q, k, v, mask)), f"{name}.o", WIDTH, WIDTH, bias=True)


def _relu_mlp(g: Writer, x: str, name: str) -> str:
    h = g.node("Relu", [g.linear(x, f"{name}.up", WIDTH, HIDDEN, bias=True)])
    return g.linear(h, f"{name}.down", HIDDEN, WIDTH, bias=True)


def _logits(g: Writer, x: str) -> None:
    with g.scope("/lm_head"):
        g.node("MatMul", [x, g.normal("head", WIDTH, VOCABULARY, fan_in=WIDTH)], output="logits")


def _own_head(g: Writer, x: str, *, domains: tuple[str, ...] = ()) -> onnx.ModelProto:
    _logits(g, x)
    return g.finished(_TOKENS, _LOGITS, domains=domains)


def _tied_head(g: Writer, x: str) -> onnx.ModelProto:
    with g.scope("/lm_head"):
        table = g.node("Transpose", ["wte"], perm=[1, 0])
        g.node("MatMul", [x, table], output="logits")
    return g.finished(_TOKENS, _LOGITS)
