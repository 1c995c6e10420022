"""Scheme: code ranges, types, opsets and storage, for every width."""

import pytest
from graphs import ONNX_BITS

from onnxq.errors import RecipeError
from onnxq.scheme import BLOCK_SIZES, Scheme


@pytest.mark.parametrize("bits", ONNX_BITS)
def test_code_ranges_are_those_of_the_onnx_types(bits):
    signed, unsigned = Scheme(bits, True, "per_axis"), Scheme(bits, False, "per_axis")
    assert (signed.qmin, signed.qmax) == (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    assert (unsigned.qmin, unsigned.qmax) == (0, 2**bits - 1)
    assert (signed.dtype.name, unsigned.dtype.name) == (f"INT{bits}", f"UINT{bits}")


@pytest.mark.parametrize(
    ("scheme", "opset"),
    [
        (Scheme(2, True, block_size=32), 25),
        (Scheme(2, True, "per_axis"), 25),
        (Scheme(4, True, "per_axis"), 21),
        (Scheme(8, True, block_size=32), 21),
        (Scheme(8, True, "per_axis"), 13),
    ],
    ids=str,
)
def test_opset_is_the_first_that_knows_the_type_and_the_granularity(scheme, opset):
    assert scheme.opset == opset


@pytest.mark.parametrize(
    ("scheme", "k", "expected"),
    [
        (Scheme(4, True, block_size=32), 64, 4 + 16 / 32),
        (Scheme(4, False, block_size=32), 64, 4 + (16 + 4) / 32),
        (Scheme(4, False, block_size=32), 33, 4 + 2 * (16 + 4) / 33),  # the second block holds one row
        (Scheme(8, True, "per_axis"), 64, 8 + 16 / 64),
    ],
    ids=str,
)
def test_bits_per_weight_counts_scales_and_zero_points(scheme, k, expected):
    assert scheme.bits_per_weight(k) == pytest.approx(expected)


@pytest.mark.parametrize("bits", [0, 1, 7, 16])
def test_other_widths_are_refused_with_the_ones_that_exist(bits):
    with pytest.raises(RecipeError, match=rf"bits={bits} .*use one of 2, 3, 4, 5, 6, 8"):
        Scheme(bits, True, "per_axis")


@pytest.mark.parametrize("block_size", [0, 8, 48, 512])
def test_other_block_sizes_are_refused_with_the_ones_that_exist(block_size):
    with pytest.raises(RecipeError, match=rf"block_size={block_size} .*use one of 16, 32, 64, 128, 256"):
        Scheme(4, True, block_size=block_size)


def test_every_listed_block_size_is_accepted_and_named():
    assert [str(Scheme(4, True, block_size=size)) for size in BLOCK_SIZES] == [
        f"int4 block {size}" for size in (16, 32, 64, 128, 256)
    ]
    assert str(Scheme(8, False, "per_axis")) == "uint8 per axis"
