"""The packed format: every function body, run by onnx's reference evaluator, against the float64 product.

The oracle reads the stored bytes as the ONNX standard describes them and shares no code with onnxq.
"""

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graphs import ONNX_BITS, graph, model, node, op_types, relative_error, run_reference, tensor, value
from onnxq_plugins.packed import Packed
from stages import quantize, site

from onnxq.affine import QuantizedWeight
from onnxq.scheme import BLOCK_SIZES, Scheme

BITS_OF = {f"{sign}INT{bits}": bits for bits in ONNX_BITS for sign in ("", "U")}
RAGGED, EVEN = 150, 256  # K; ragged for every block size


def decode(stored: onnx.TensorProto) -> np.ndarray:
    """Integers of a stored tensor: below 8 bits the first element is in the lowest bits of a byte."""
    kind = onnx.TensorProto.DataType.Name(stored.data_type)
    bits, per_byte = BITS_OF[kind], 8 // BITS_OF[kind]
    raw = np.frombuffer(stored.raw_data, np.uint8)
    fields = np.stack([(raw >> (bits * place)) & (2**bits - 1) for place in range(per_byte)], axis=1).reshape(-1)
    values = fields[: int(np.prod(stored.dims))].astype(np.int64)
    if not kind.startswith("U"):
        values = np.where(values >= 2 ** (bits - 1), values - 2**bits, values)
    return values.reshape(stored.dims)


def dequantized(proto: onnx.ModelProto, name: str, block_size: int, *, axis: int) -> np.ndarray:
    """float64 weight from the initializers NAME.codes, NAME.scales and NAME.zero_points, blocks along `axis`."""
    tensors = {item.name: item for item in proto.graph.initializer}
    codes = decode(tensors[f"{name}.codes"])
    row = np.arange(codes.shape[axis]) // block_size
    scales = onnx.numpy_helper.to_array(tensors[f"{name}.scales"]).astype(np.float64).take(row, axis)
    if f"{name}.zero_points" in tensors:
        codes = codes - decode(tensors[f"{name}.zero_points"]).take(row, axis)
    return codes * scales


def matmul_model(k: int, n: int = 8, dtype=np.float32) -> onnx.ModelProto:
    weight = np.random.default_rng(0).standard_normal((k, n)).astype(dtype) + dtype(0.3)
    return model(
        graph(
            [node("MatMul", ["X", "W"], ["Y"], name="fc")],
            [value("X", ["M", k], dtype)],
            [value("Y", ["M", n], dtype)],
            {"W": weight},
        )
    )


def tied_model(k: int, rows: int = 12, dtype=np.float32) -> onnx.ModelProto:
    """An embedding and a head that share one table [V, K]."""
    table = np.random.default_rng(1).standard_normal((rows, k)).astype(dtype) + dtype(0.3)
    return model(
        graph(
            [
                node("Gather", ["table", "ids"], ["H"], name="embed"),
                node("Transpose", ["table"], ["head"], perm=[1, 0]),
                node("MatMul", ["H", "head"], ["Y"], name="head"),
            ],
            [value("ids", ["M"], np.int64)],
            [value("H", ["M", k], dtype), value("Y", ["M", rows], dtype)],
            {"table": table},
        )
    )


def product_bound(a: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """float32 sums: K + 3 roundings (scale, code times scale, K - 1 additions, product), each within 2^-24."""
    return (len(weight) + 3) * 2.0**-24 * (np.abs(a.astype(np.float64)) @ np.abs(weight))


@pytest.mark.parametrize("bits", ONNX_BITS)
@pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "asymmetric"])
@pytest.mark.parametrize("block_size", BLOCK_SIZES)
@pytest.mark.parametrize("k", [EVEN, RAGGED], ids=["even", "ragged"])
def test_matmul(registry, bits, symmetric, block_size, k):
    made = quantize(matmul_model(k), registry, bits=bits, symmetric=symmetric, block_size=block_size).model.ir
    proto = ir.to_proto(made)
    assert op_types(proto.graph) == ["PackedMatMul" + ("" if symmetric else "ZeroPoint")]
    a = np.random.default_rng(2).standard_normal((5, k)).astype(np.float32)
    weight = dequantized(proto, "W", block_size, axis=0)
    (y,) = run_reference(proto, {"X": a})
    assert (np.abs(y - a.astype(np.float64) @ weight) <= product_bound(a, weight)).all()


@pytest.mark.parametrize("bits", ONNX_BITS)
@pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "asymmetric"])
@pytest.mark.parametrize("block_size", BLOCK_SIZES)
@pytest.mark.parametrize("k", [EVEN, RAGGED], ids=["even", "ragged"])
def test_tied_table_and_head(registry, bits, symmetric, block_size, k):
    wishes = {"table_bits": bits, "symmetric": symmetric, "block_size": block_size}
    proto = ir.to_proto(quantize(tied_model(k), registry, **wishes).model.ir)
    suffix = "" if symmetric else "ZeroPoint"
    assert op_types(proto.graph) == [f"PackedGather{suffix}", "Max", f"PackedMatMulTransposed{suffix}"]
    assert [item.name for item in proto.graph.initializer if item.name.endswith("codes")] == ["table.codes"]
    ids = np.array([3, 0, -1, 11])
    table = dequantized(proto, "table", block_size, axis=1)
    h, y = run_reference(proto, {"ids": ids})
    assert (np.abs(h - table[ids]) <= 2.0**-24 * np.abs(table[ids])).all()  # one float32 multiplication
    assert (np.abs(y - h.astype(np.float64) @ table.T) <= product_bound(h, table.T)).all()


@pytest.mark.parametrize("bits", ONNX_BITS)
def test_float16_models_stay_float16(registry, bits):
    """W, the product and each of its partial sums are rounded to float16; the error grows like their square root."""
    proto = ir.to_proto(quantize(matmul_model(RAGGED, dtype=np.float16), registry, bits=bits).model.ir)
    a = np.random.default_rng(2).standard_normal((5, RAGGED)).astype(np.float16)
    (y,) = run_reference(proto, {"X": a})
    expected = a.astype(np.float64) @ dequantized(proto, "W", 32, axis=0)
    assert y.dtype == np.float16
    assert relative_error(y, expected) <= 4 * 2.0**-11  # 0.002; a scale 1% off is five times that
    proto = ir.to_proto(quantize(tied_model(RAGGED, dtype=np.float16), registry, table_bits=bits).model.ir)
    assert op_types(proto.graph)[0].startswith("PackedGatherFloat16")
    h, y = run_reference(proto, {"ids": np.array([1, 5])})
    assert (h.dtype, y.dtype) == (np.float16, np.float16)


def test_bfloat16_rows_are_float32_rows_behind_a_cast(registry):
    proto = ir.to_proto(quantize(tied_model(RAGGED, dtype=ml_dtypes.bfloat16), registry).model.ir)
    assert op_types(proto.graph) == ["PackedGather", "Cast", "PackedMatMulTransposed"]
    onnx.checker.check_model(proto, full_check=True)


def scale_one_percent_off(proto: onnx.ModelProto, tensors: dict[str, onnx.TensorProto]) -> None:
    scales = onnx.numpy_helper.to_array(tensors["W.scales"])
    tensors["W.scales"].CopyFrom(tensor("W.scales", (scales * np.float16(1.01)).astype(np.float16)))


def swapped_nibbles(proto: onnx.ModelProto, tensors: dict[str, onnx.TensorProto]) -> None:
    raw = np.frombuffer(tensors["W.codes"].raw_data, np.uint8)
    tensors["W.codes"].raw_data = (raw >> 4 | raw << 4).astype(np.uint8).tobytes()


def dropped_zero_point(proto: onnx.ModelProto, tensors: dict[str, onnx.TensorProto]) -> None:
    tensors["W.zero_points"].raw_data = bytes(len(tensors["W.zero_points"].raw_data))


@pytest.mark.parametrize("spoil", [scale_one_percent_off, swapped_nibbles, dropped_zero_point])
@pytest.mark.parametrize("k", [EVEN, RAGGED], ids=["even", "ragged"])
def test_the_bound_has_teeth(registry, spoil, k):
    """Each of these mistakes leaves the bound of `test_matmul` in more than half of the products."""
    proto = ir.to_proto(quantize(matmul_model(k), registry, bits=4).model.ir)
    weight = dequantized(proto, "W", 32, axis=0)
    spoil(proto, {item.name: item for item in proto.graph.initializer})
    a = np.random.default_rng(2).standard_normal((5, k)).astype(np.float32)
    (y,) = run_reference(proto, {"X": a})
    assert (np.abs(y - a.astype(np.float64) @ weight) > product_bound(a, weight)).mean() > 0.5


@pytest.mark.parametrize("bits", ONNX_BITS)
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_per_channel_is_a_plain_dequantize_linear(registry, bits, dtype):
    """Half a scale, and the rounding of the scale: to float16, and once more where the model's type is shorter."""
    proto = ir.to_proto(quantize(matmul_model(EVEN, dtype=dtype), registry, bits=bits, block_size="channel").model.ir)
    assert op_types(proto.graph) == ["DequantizeLinear", "MatMul"]
    tensors = {item.name: item for item in proto.graph.initializer}
    assert tensors["W.scales"].data_type == proto.graph.input[0].type.tensor_type.elem_type
    scales = onnx.numpy_helper.to_array(tensors["W.scales"]).astype(np.float64)
    zero = decode(tensors["W.zero_points"]) if "W.zero_points" in tensors else 0
    original = onnx.numpy_helper.to_array(matmul_model(EVEN, dtype=dtype).graph.initializer[0]).astype(np.float64)
    error = np.abs((decode(tensors["W.codes"]) - zero) * scales - original)
    rounding = 2.0**-11 + (float(ml_dtypes.finfo(dtype).eps) / 2 if dtype == ml_dtypes.bfloat16 else 0)
    assert (error <= scales * (0.5 + (2**bits - 1) * rounding * 1.01)).all()


REFUSED = [
    (site("gather", 64, 100), Scheme(4, True, "per_axis"), "a table is packed in blocks"),
    (site("matmul_transposed", 64, 100), Scheme(4, True, "per_axis"), "a table is packed in blocks"),
    (site("conv", 64, 100), Scheme(4, True, "per_axis"), "packed as int8 per channel"),
    (site("conv", 64, 100), Scheme(8, True, block_size=32), "packed as int8 per channel"),
    (site("matmul", 64, 101), Scheme(2, True, block_size=32), "N divisible by 4, this one has N=101"),
]


@pytest.mark.parametrize(("where", "scheme", "reason"), REFUSED, ids=lambda item: getattr(item, "kind", str(item)))
def test_what_it_cannot_write_it_refuses_with_a_reason(where, scheme, reason):
    assert reason in Packed().refuses(where, scheme)


@pytest.mark.parametrize(
    ("where", "scheme"),
    [
        (site("matmul", 64, 101), Scheme(4, False, block_size=32)),
        (site("matmul", 64, 100), Scheme(2, False, block_size=16)),
        (site("matmul_transposed", 64, 101), Scheme(2, False, block_size=16)),
        (site("conv", 64, 101), Scheme(8, True, "per_axis")),
        (site("matmul", 64, 101), Scheme(8, True, "per_axis")),
    ],
    ids=lambda item: getattr(item, "kind", str(item)),
)
def test_what_it_can_write_it_does_not_refuse(where, scheme):
    assert Packed().refuses(where, scheme) is None


def test_tables_are_stored_by_row():
    scheme = Scheme(8, False, block_size=16)
    codes = np.arange(32 * 3, dtype=np.uint8).reshape(32, 3)  # [K, V]
    scales = np.arange(6, dtype=np.float32).reshape(2, 3) + 1
    weight = QuantizedWeight(codes, scales, scales.astype(np.uint8), scheme)
    stored = Packed().store(site("gather", 32, 3), weight).tensors
    assert (stored["codes"].numpy() == codes.T).all()
    assert (stored["scales"].numpy() == scales.T).all()
    assert stored["scales"].dtype == ir.DataType.FLOAT16
    assert (stored["zero_points"].numpy() == scales.T).all()
