"""The matmulnbits format: bytes as the operator's documentation lays them out, read back by a loop."""

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from graphs import graph, model, node, relative_error, run, value
from onnxq_plugins.matmulnbits import MatMulNBits
from stages import plan, quantize, site

from onnxq.affine import dequantize
from onnxq.errors import RecipeError
from onnxq.scheme import Scheme

RAGGED, N = 150, 12
RNG = np.random.default_rng(0)


def one(k: int, n: int, dtype=np.float32, opset: int = 17):
    weight = (RNG.standard_normal((k, n)) + 0.3).astype(dtype)
    nodes = [node("MatMul", ["X", "W"], ["Y"], name="fc")]
    return model(graph(nodes, [value("X", ["M", k], dtype)], [value("Y", ["M", n], dtype)], {"W": weight}), opset=opset)


def decode(packed: np.ndarray, bits: int, count: int) -> list[int]:
    """Codes of a row of bytes, the first in the lowest bits."""
    stream = sum(int(byte) << (8 * index) for index, byte in enumerate(packed.reshape(-1)))
    return [(stream >> (bits * index)) % (1 << bits) for index in range(count)]


def written(initializers, k: int, n: int, scheme: Scheme) -> np.ndarray:
    """float64 [K, N] from what stands in the file."""
    tensors = {name.rpartition(".")[2]: v.const_value.numpy() for name, v in initializers.items() if name[:2] == "W."}
    blocks = -(-k // scheme.block_size)
    weight = np.empty((k, n))
    for column in range(n):
        zeros = [1 << (scheme.bits - 1)] * blocks
        if "zero_points" in tensors:
            zeros = decode(tensors["zero_points"][column], scheme.bits, blocks)
        for block in range(blocks):
            codes = decode(tensors["codes"][column, block], scheme.bits, scheme.block_size)
            for place in range(min(scheme.block_size, k - block * scheme.block_size)):
                scale = float(tensors["scales"][column, block])
                weight[block * scheme.block_size + place, column] = (codes[place] - zeros[block]) * scale
    return weight


CASES = [(4, 16), (4, 32), (4, 256), (8, 32), (8, 128), (2, 32), (2, 64)]


@pytest.mark.parametrize(("bits", "block_size"), CASES)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_bytes_mean_what_was_quantized_and_onnxruntime_reads_them_so(registry, bits, block_size, symmetric, dtype):
    proto = one(RAGGED, N, dtype)
    wishes = {"bits": bits, "block_size": block_size, "symmetric": symmetric}
    made = quantize(proto, registry, format="matmulnbits", **wishes).model.ir
    weight = ir.from_proto(proto).graph.initializers["W"].const_value.numpy().astype(np.float32)
    scheme = Scheme(bits=bits, symmetric=symmetric, block_size=block_size)
    quantized = registry.weight_quantizer("rtn").provided.quantize(weight, scheme, None)
    stored = written(made.graph.initializers, RAGGED, N, scheme)
    assert np.array_equal(stored, dequantize(quantized).astype(np.float64))

    x = RNG.standard_normal((5, RAGGED)).astype(dtype)
    (y,) = run(made, {"X": x})
    assert y.dtype == dtype
    exact = x.astype(np.float64) @ stored
    # int8 activations per block: a half step is 1/254 of a block's largest value, 3.1 sigma at most here
    assert relative_error(y, exact) < 0.012
    assert relative_error(y, exact * 1.02) > 0.012
    assert relative_error(y, x.astype(np.float64) @ np.roll(stored, 1, axis=0)) > 0.1


def test_the_node_is_complete_and_the_opset_stays(registry):
    made = quantize(one(RAGGED, N, opset=17), registry, format="matmulnbits", bits=4).model.ir
    (packed,) = made.graph
    attributes = {name: attribute.value for name, attribute in packed.attributes.items()}
    assert attributes == {"K": RAGGED, "N": N, "bits": 4, "block_size": 32, "accuracy_level": 4}
    assert (packed.domain, packed.name) == ("com.microsoft", "fc")
    assert made.graph.opset_imports == {"": 17, "com.microsoft": 1}
    assert not made.functions


def test_tables_stay_float_with_the_reason(registry):
    table = RNG.standard_normal((50, 64)).astype(np.float32)
    nodes = [
        node("Gather", ["T", "ids"], ["E"], name="embed"),
        node("Transpose", ["T"], ["H"], perm=[1, 0]),
        node("MatMul", ["E", "W"], ["P"], name="fc"),
        node("MatMul", ["P", "H"], ["Y"], name="head"),
    ]
    weights = {"T": table, "W": RNG.standard_normal((64, 64)).astype(np.float32)}
    proto = model(graph(nodes, [value("ids", ["M"], np.int64)], [value("Y", ["M", 50])], weights))
    made = plan(proto, registry, format="matmulnbits")
    assert [decision.site.node for decision in made.decisions] == ["fc"]
    assert {skip.node for skip in made.skips} == {"embed", "head"}
    assert all("--format packed takes tables" in skip.reason for skip in made.skips)


def test_other_widths_give_way_to_wider_ones(registry):
    made = plan(one(RAGGED, N), registry, format="matmulnbits", bits=3)
    assert made.decisions[0].scheme.bits == 4
    assert "'fc' gets 4 bits: MatMulNBits takes 2, 4 and 8 bits" in made.warnings[0]
    slow = plan(one(RAGGED, N), registry, format="matmulnbits", bits=2, block_size=16)
    assert slow.decisions[0].scheme.bits == 4
    assert "slower than float with blocks of 16" in slow.warnings[0]


def test_channels_are_refused(registry):
    with pytest.raises(RecipeError, match=r"MatMul 'fc': MatMulNBits takes blocks, not uint4 per axis"):
        plan(one(RAGGED, N), registry, format="matmulnbits", block_size="channel")


def test_bfloat16_is_refused(registry):
    with pytest.raises(RecipeError, match="float32 and float16 activations, not BFLOAT16"):
        plan(one(RAGGED, N, ml_dtypes.bfloat16), registry, format="matmulnbits")


def test_resident_bits_count_float32_scales():
    scheme = Scheme(bits=4, symmetric=False, block_size=32)
    assert MatMulNBits().resident_bits(site("matmul", 64, 8), scheme) == 4 + (32 + 4) / 32
