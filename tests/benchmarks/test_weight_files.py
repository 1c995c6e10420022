"""Readers of weight files, on small files written here byte by byte."""

from __future__ import annotations

import io
import json
import pickle
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from benchmarks.models.builders.llama import half_rotation_order
from benchmarks.models.builders.smollm2 import read_gguf, read_tokenizer
from benchmarks.models.errors import SuiteError
from benchmarks.models.safetensors import read_safetensors
from benchmarks.models.torch_checkpoint import read_state_dict

MATRIX = np.arange(6, dtype=np.float32).reshape(2, 3)


def write_safetensors(path: Path, entries: dict[str, Any], data: bytes) -> None:
    header = json.dumps(entries).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)


def test_safetensors(tmp_path: Path) -> None:
    ids = np.array([7, -1], np.int64)
    entries = {
        "__metadata__": {"format": "np"},
        "ids": {"dtype": "I64", "shape": [2], "data_offsets": [24, 40]},
        "matrix": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    }
    write_safetensors(tmp_path / "x.safetensors", entries, MATRIX.tobytes() + ids.tobytes())
    tensors = read_safetensors(tmp_path / "x.safetensors")
    assert set(tensors) == {"ids", "matrix"}
    np.testing.assert_array_equal(tensors["matrix"], MATRIX)
    np.testing.assert_array_equal(tensors["ids"], ids)
    assert tensors["matrix"].dtype == np.float32


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"dtype": "BF16", "shape": [6], "data_offsets": [0, 12]}, "BF16"),
        ({"dtype": "F32", "shape": [2, 4], "data_offsets": [0, 24]}, "24 bytes"),
    ],
)
def test_safetensors_refuses(tmp_path: Path, entry: dict[str, Any], message: str) -> None:
    write_safetensors(tmp_path / "x.safetensors", {"w": entry}, MATRIX.tobytes())
    with pytest.raises(SuiteError, match=message):
        read_safetensors(tmp_path / "x.safetensors")


class FloatStorage:
    """What torch calls a block of float32; pickled by that name."""

    __module__, __qualname__ = "torch", "FloatStorage"

    def __init__(self, key: str) -> None:
        self.persistent_id = ("storage", FloatStorage, key, "cpu", 0)


def rebuild(*_: Any) -> None:
    """What torch calls to make a tensor of a storage; pickled by that name."""


rebuild.__module__, rebuild.__qualname__ = "torch._utils", "_rebuild_tensor_v2"


@dataclass(frozen=True)
class Tensor:
    storage: FloatStorage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __reduce__(self) -> Any:
        return rebuild, (self.storage, self.offset, self.shape, self.strides, False, {})


@pytest.fixture
def pickled(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A state dict as torch.save pickles it: the pickler finds the two names in modules made up here.

    Two tensors share a storage of eight floats: a transposed matrix, and a scalar at the end.
    """
    torch, inner = ModuleType("torch"), ModuleType("torch._utils")
    vars(torch)["FloatStorage"], vars(inner)["_rebuild_tensor_v2"] = FloatStorage, rebuild
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", inner)

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            return value.persistent_id if isinstance(value, FloatStorage) else None

    storage, buffer = FloatStorage("0"), io.BytesIO()
    state = {"turned": Tensor(storage, 1, (3, 2), (1, 3)), "scalar": Tensor(storage, 7, (), ())}
    Pickler(buffer, protocol=2).dump(state)
    return buffer.getvalue()


STORAGE = np.array([99, 0, 1, 2, 3, 4, 5, 7], np.float32)


def check(tensors: dict[str, Any]) -> None:
    np.testing.assert_array_equal(tensors["turned"], MATRIX.T)
    assert tensors["scalar"].shape == ()
    assert tensors["scalar"] == 7


def test_zip_checkpoint(tmp_path: Path, pickled: bytes) -> None:
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("x/data.pkl", pickled)
        archive.writestr("x/data/0", STORAGE.tobytes())
    check(read_state_dict(tmp_path / "x.pth"))


def test_legacy_checkpoint(tmp_path: Path, pickled: bytes) -> None:
    preamble = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    head = b"".join(pickle.dumps(value, 2) for value in preamble)
    body = pickled + pickle.dumps(["0"], 2) + (8).to_bytes(8, "little") + STORAGE.tobytes()
    (tmp_path / "x.pth").write_bytes(head + body)
    check(read_state_dict(tmp_path / "x.pth"))


def test_a_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    target = tmp_path / "pwned"
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("x/data.pkl", b"cos\nsystem\n(S'touch " + str(target).encode() + b"'\ntR.")
    with pytest.raises(pickle.UnpicklingError, match=r"os\.system"):
        read_state_dict(tmp_path / "x.pth")
    assert not target.exists()


@pytest.fixture
def gguf_path(tmp_path: Path) -> Path:
    """A llama file with one layer, two query heads of four, and a vocabulary that can spell "hi 12"."""
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama")
    writer.add_block_count(1)
    writer.add_embedding_length(8)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_token_list(["h", "i", "\u0120", "1", "2", "hi", "12"])  # \u0120 is byte-level BPE's space
    writer.add_token_merges(["h i", "1 2"])
    writer.add_tensor("blk.0.attn_q.weight", np.arange(64, dtype=np.float32).reshape(8, 8))
    writer.add_tensor("blk.0.attn_k.weight", np.arange(32, dtype=np.float32).reshape(4, 8))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tmp_path / "x.gguf"


def test_gguf(gguf_path: Path) -> None:
    weights, shape = read_gguf(gguf_path)
    assert (shape.layers, shape.hidden, shape.heads, shape.kv_heads, shape.head_dim) == (1, 8, 2, 1, 4)
    assert shape.rope_base == 10000.0
    stored = np.arange(64, dtype=np.float32).reshape(8, 8)
    np.testing.assert_array_equal(weights["blk.0.attn_q.weight"], half_rotation_order(stored, 2))
    np.testing.assert_array_equal(weights["blk.0.attn_q.weight"][:, 0], [0, 16, 8, 24, 32, 48, 40, 56])


def test_gguf_tokenizer(gguf_path: Path) -> None:
    pytest.importorskip("tokenizers")
    tokenizer = read_tokenizer(gguf_path)
    assert tokenizer.encode("hi 12").ids == [5, 2, 3, 4]  # merged letters, single digits
    assert tokenizer.decode([5, 2, 3, 4]) == "hi 12"
