"""PackedGather on the device: rows of the table whose transpose a tied head multiplies by."""

import numpy as np
import pytest
from emulation import Emulator, build, make_product

VARIANTS = [build.Variant(element, bits) for element in build.ELEMENTS for bits in build.WIDTHS]
MAIN = build.Variant("half", 4)


@pytest.mark.parametrize("variant", [pytest.param(v, marks=pytest.mark.quick) if v == MAIN else v for v in VARIANTS],
                         ids=lambda v: v.name)  # fmt: skip
@pytest.mark.parametrize(("k", "block", "index"), [(256, 64, np.int64), (328, 16, np.int32), (203, 32, np.int64)])
@pytest.mark.parametrize("zero_points", [False, True])
def test_rows(variant, k, block, index, zero_points):
    """(code - zero) * scale is exact in float32, so the result is its one rounding, bit for bit."""
    table = make_product(
        1, k, 70, element=variant.element, bits=variant.bits, block=block, zero_points=zero_points, transposed=True
    )
    indices = np.array([0, 69, 7, 8, 15, 16, -1, -70, 33, 33], index)
    rows = Emulator().gather(table, indices)
    expected = table.weight().T[indices].astype(np.float32).astype(rows.dtype)
    assert np.array_equal(rows, expected)


@pytest.mark.quick
@pytest.mark.parametrize("variant", [MAIN], ids=lambda v: v.name)
def test_an_index_outside_the_table_gives_nan(variant):
    rows = Emulator().gather(make_product(1, 100, 20), np.array([19, 20, -21, 1 << 40], np.int64))
    assert not np.isnan(rows[0]).any()
    assert np.isnan(rows[1:]).all()


@pytest.mark.quick
@pytest.mark.parametrize("variant", [MAIN], ids=lambda v: v.name)
def test_unaligned_output(variant):
    table = make_product(1, 256, 20)
    indices = np.arange(20, dtype=np.int32)
    assert np.array_equal(Emulator().gather(table, indices, skew=4), Emulator().gather(table, indices))
