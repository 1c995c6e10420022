"""PackedGather: exact, since dequantizing one element is one multiplication."""

import numpy as np
import pytest
from onnx import TensorProto
from packed_nodes import Weight, gather_model, session

ROWS, DEPTH = 50, 72


def table(bits, block, zero_points, scales=np.float16) -> tuple[Weight, np.ndarray]:
    """The table as stored ([V, K], scales [V, blocks]) and dequantized, float64."""
    rng = np.random.default_rng(bits)
    low = 0 if zero_points else -(1 << (bits - 1))
    codes = rng.integers(low, low + (1 << bits), (ROWS, DEPTH))
    shape = (ROWS, -(-DEPTH // block))
    values = rng.uniform(0.25, 1.0, shape).astype(scales)
    zero = rng.integers(0, 1 << bits, shape) if zero_points else None
    column = np.arange(DEPTH) // block
    exact = (codes - (0 if zero is None else zero[:, column])) * values.astype(np.float64)[:, column]
    return Weight(codes, values, zero, bits, block), exact


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("zero_points", [False, True])
@pytest.mark.parametrize("to", [TensorProto.FLOAT, TensorProto.FLOAT16])
@pytest.mark.parametrize("scales", [np.float16, np.float32])
def test_rows_are_dequantized_exactly(library, bits, zero_points, to, scales):
    weight, exact = table(bits, 32, zero_points, scales)
    indices = np.array([[0, 49, 7], [-1, -50, 3]])
    y = session(gather_model(weight, to=to, rank=2), library).run(None, {"indices": indices})[0]
    expected = exact[indices].astype(np.float32)
    assert y.shape == (2, 3, DEPTH)
    assert (y == (expected.astype(np.float16) if to == TensorProto.FLOAT16 else expected)).all()


@pytest.mark.parametrize("block", [16, 32, 64, 128, 256])
def test_every_block_size_and_int32_indices(library, block):
    weight, exact = table(4, block, True)
    indices = np.arange(-ROWS, ROWS, dtype=np.int32)
    model = gather_model(weight, indices=TensorProto.INT32)
    y = session(model, library).run(None, {"indices": indices})[0]
    assert (y == exact[indices].astype(np.float32)).all()


def test_stock_onnxruntime_gives_the_same_rows(library):
    weight, _ = table(4, 32, True)
    feed = {"indices": np.arange(ROWS)}
    model = gather_model(weight)
    assert (session(model, library).run(None, feed)[0] == session(model, None).run(None, feed)[0]).all()


@pytest.mark.parametrize("index", [ROWS, -ROWS - 1, 2**62])
def test_an_index_outside_the_table_is_an_error(library, index):
    weight, _ = table(4, 32, True)
    with pytest.raises(Exception, match=rf"PackedGatherZeroPoint '/embed': index {index} is outside"):
        session(gather_model(weight), library).run(None, {"indices": np.array([index])})


def test_teeth_a_wrong_row_is_seen(library):
    weight, exact = table(4, 32, True)
    y = session(gather_model(weight), library).run(None, {"indices": np.arange(ROWS)})[0]
    assert (y != np.roll(exact, 1, axis=0).astype(np.float32)).any()
