"""The device layout against a second description of it, written from the words of layout.h."""

import numpy as np
import pytest
from emulation import make_product, repacked
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.quick


def described(product) -> tuple[dict[int, np.ndarray], np.ndarray, np.ndarray]:
    """Planes' bytes by tile, scales and zero points, built slowly from the description."""
    k, n = product.codes.shape
    bits, block = product.bits, product.block
    base = {2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 8: 8}[bits]
    narrow = product.element == "float" or block == 16
    padded = np.zeros((-(-k // 64) * 64, -(-n // 16) * 16), np.int64)
    padded[:k, :n] = product.codes
    tiles = {}
    for c in range(padded.shape[1] // 16):
        for d in range(padded.shape[0] // 64):
            tile = padded[d * 64 : d * 64 + 64, c * 16 : c * 16 + 16]
            data = b""
            for width, shift in ((base, 0), (bits - base, base)):
                if width:
                    data += plane(tile >> shift & (1 << width) - 1, width, narrow)
            tiles[c * (padded.shape[0] // 64) + d] = np.frombuffer(data, np.uint8)
    in_row = max(1, 64 // block)
    rows = -(-k // max(64, block))
    shape = (padded.shape[1] // 16, rows, 8, in_row, 2)
    scales, zeros = np.zeros(shape), np.zeros(shape, np.uint8)
    for column in range(n):
        for at in range(-(-k // block)):
            place = column // 16, at // in_row, column % 8, at % in_row, column % 16 // 8
            scales[place] = product.scales[at, column]
            if product.zero_points is not None:
                zeros[place] = product.zero_points[at, column]
    if product.zero_points is None:
        zeros = np.full(shape[2:], 1 << bits - 1, np.uint8)
    return tiles, scales, zeros


def plane(codes: np.ndarray, width: int, narrow: bool) -> bytes:
    """[word piece][lane][words of a piece] of one tile, codes [64, 16]."""
    words = np.zeros((width, 32), np.uint32)
    for lane in range(32):
        group, quad = divmod(lane, 4)
        for index in range(32):  # step, register, half
            step, register, half = index >> 3, index >> 1 & 3, index & 1
            neighbour = (register >> 1) * 2 + half
            depth = (
                step * 16 + quad * 4 + neighbour if narrow else (step // 2) * 32 + quad * 8 + (step % 2) * 4 + neighbour
            )
            field = step * 4 + register
            word, bit = divmod(field * width, 16)
            words[word, lane] |= np.uint32(int(codes[depth, group + register % 2 * 8]) << bit + 16 * half)
    piece = min(width, 4)
    return b"".join(words[w : w + piece].T.tobytes() for w in range(0, width, piece))


@settings(max_examples=40, deadline=None)
@given(
    k=st.integers(1, 200), n=st.integers(1, 40), bits=st.sampled_from((2, 3, 4, 5, 6, 8)),
    block=st.sampled_from((16, 32, 64, 128, 256)), zero_points=st.booleans(), transposed=st.booleans(),
    element=st.sampled_from(("half", "bfloat16", "float")),
)  # fmt: skip
def test_repacking_is_as_described(k, n, bits, block, zero_points, transposed, element):
    product = make_product(
        1, k, n, bits=bits, block=block, zero_points=zero_points, transposed=transposed, element=element, seed=k
    )
    data, scales_at, zeros_at = repacked(product)
    tiles, scales, zeros = described(product)
    size = bits * 128
    for index, expected in tiles.items():
        assert np.array_equal(data[index * size : (index + 1) * size], expected), f"tile {index}"
    expected = scales.astype(product.activations.dtype).ravel()
    found = np.frombuffer(data[scales_at:zeros_at].tobytes(), expected.dtype)[: expected.size]
    assert np.array_equal(found, expected)
    assert np.array_equal(data[zeros_at : zeros_at + zeros.size], zeros.ravel())


def test_a_weight_takes_its_bits_and_no_more():
    """4096 x 4096, 4 bits, blocks of 128: 4 bits and a scale in 16 x 128 weights' 4.125 bits."""
    data, scales_at, _ = repacked(make_product(1, 512, 256, block=128))
    assert scales_at == 512 * 256 * 4 // 8
    assert 8 * data.size / (512 * 256) < 4.2
