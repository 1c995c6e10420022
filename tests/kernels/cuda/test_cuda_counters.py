"""What the kernels' memory accesses cost: sectors and bank conflicts, counted on whole tiles, where every access
belongs to a main loop, a prologue or an epilogue."""

import numpy as np
import pytest
from emulation import Emulator, build, make_product, with_codebook
from raw_ptx import RawModule, entry

pytestmark = pytest.mark.quick
VARIANTS = [build.Variant("half", 4), build.Variant("half", 2), build.Variant("half", 8), build.Variant("float", 4),
            build.Variant("half", 4, codebook=True)]  # fmt: skip


def counts(variant, kernel, m, block, zero_points):
    emulator = Emulator()
    product = make_product(
        m, 512, 128, element=variant.element, bits=variant.bits, block=block, zero_points=zero_points
    )
    if variant.codebook:
        product = with_codebook(product, np.linspace(-1, 1, 1 << variant.bits, dtype=np.float32))
    emulator.run(product, kernel=kernel, count=True)
    return emulator.counts()


def is_scale_or_zero(c, variant, block) -> bool:
    """Decode reads zero points of blocks >= 64 as 8 x 2 bytes, and float scales of blocks of 16 as two 16-byte
    halves of 32 bytes a lane group: half a sector at a time."""
    float_scales = variant.element == "float" and block == 16 and c.opcode == "ld.global.nc.v4.u32"
    return c.opcode == "ld.global.nc.u16" or float_scales


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.name)
@pytest.mark.parametrize(
    ("kernel", "m", "zero_points"), [("decode", 8, False), ("decode", 8, True), ("mid", 32, True), ("wide", 128, True)]
)
@pytest.mark.parametrize("block", [16, 32, 128])
def test_no_wasted_sector_and_no_bank_conflict(variant, kernel, m, zero_points, block):
    found = counts(variant, kernel, m, block, zero_points)
    reads = [c for c in found if c.space == "global read"]
    copies = [c for c in reads if c.opcode.startswith("cp.async")]
    assert any("v4" in c.opcode for c in reads) or copies
    for c in reads:
        assert c.useful == 1.0 or c in copies or (is_scale_or_zero(c, variant, block) and c.useful >= 0.5), f"{c}"
    # Tile kernels: only the 16-byte rows of zero points of deep blocks, one read in twenty at most.
    wasteful = [c for c in copies if c.useful < 1]
    assert not wasteful or block >= 64
    assert 20 * sum(c.requests for c in wasteful) <= sum(c.requests for c in reads), f"{wasteful}"
    assert all(c.useful >= 0.5 for c in found if c.space == "global write")
    assert [c for c in found if c.conflicts] == []


def test_the_counters_count():
    """A stride of 8 bytes wastes half of each sector; a stride of 128 meets one bank 32 times."""
    body = (
        "\tld.param.u64 %rd1, [args];\n\tmov.u32 %r1, %tid.x;\n\tmul.wide.u32 %rd2, %r1, 8;\n"
        "\tadd.s64 %rd3, %rd1, %rd2;\n\tld.global.nc.u32 %r2, [%rd3];\n\tshl.b32 %r3, %r1, 7;\n"
        "\tst.shared.f32 [%r3], %r2;\n\tret;"
    )
    module = RawModule(entry("strides", body, module="raw_5", shared=4096), module="raw_5")
    assert module.launch("strides", [np.zeros(64, np.uint32)], count=True) == ""
    read, write = sorted(Emulator.counts(), key=lambda c: c.space)
    assert (read.requests, read.useful) == (1, 0.5)
    assert write.conflicts == 31
