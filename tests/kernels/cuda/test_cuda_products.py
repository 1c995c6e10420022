"""Every matmul kernel of every variant against float64, within a derived bound, on a machine that reports
races, bad addresses and uninitialised reads; and proof that the bound notices wrong arithmetic."""

import dataclasses

import numpy as np
import pytest
from emulation import EmulationError, Emulator, build, make_product

VARIANTS = [build.Variant(element, bits) for element in build.ELEMENTS for bits in build.WIDTHS]
MAIN = build.Variant("half", 4)
BLOCKS = (16, 32, 64, 128, 256)

# (kernel, m, k, n): whole tiles, many chunks, k of whole 16-byte pieces but ragged, odd k, ragged n.
SHAPES = [
    ("decode", 1, 256, 64), ("decode", 8, 384, 48), ("decode", 5, 328, 37), ("decode", 3, 203, 17),
    ("decode", 2, 4232, 16),
    ("mid", 9, 256, 64), ("mid", 33, 328, 50), ("mid", 64, 1160, 32), ("mid", 21, 203, 37), ("mid", 16, 72, 8),
    ("wide", 64, 256, 128), ("wide", 130, 328, 137), ("wide", 70, 203, 130), ("wide", 129, 64, 24),
]  # fmt: skip


def quick_only(values, quick):
    return [pytest.param(v, marks=pytest.mark.quick) if v in quick else v for v in values]


def check(product, *, seed=0, **options):
    result = Emulator().run(product, seed=seed, **options)
    error = np.abs(result.astype(np.float64) - product.exact())
    worst = float(np.max(error / product.bound()))
    assert worst <= 1, f"error is {worst:.3g} of its bound"  # NaN fails too


@pytest.mark.parametrize("variant", quick_only(VARIANTS, [MAIN, build.Variant("float", 8)]), ids=lambda v: v.name)
@pytest.mark.parametrize(("kernel", "m", "k", "n"), SHAPES)
def test_products(variant, kernel, m, k, n):
    """Blocks, zero points, orientation, scale type, seed and truncating sums vary along the shapes."""
    at = SHAPES.index((kernel, m, k, n)) + variant.bits
    for turn in range(2):
        block = BLOCKS[(at + 3 * turn) % len(BLOCKS)]
        product = make_product(
            m, k, n, element=variant.element, bits=variant.bits, block=block, seed=at + turn,
            zero_points=(at + turn) % 2 == 0, transposed=(at // 2 + turn) % 2 == 0,
            scales=np.float32 if at % 3 == 0 else np.float16,
        )  # fmt: skip
        check(product, kernel=kernel, seed=turn, truncate_sums=turn == 1, coresident=1 + turn)


@pytest.mark.quick
@pytest.mark.parametrize("variant", [MAIN], ids=lambda v: v.name)
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("zero_points", [False, True])
@pytest.mark.parametrize("kernel", ["decode", "mid", "wide"])
def test_every_block_size(variant, block, zero_points, kernel):
    m = {"decode": 7, "mid": 19, "wide": 66}[kernel]
    check(make_product(m, 640, 40, block=block, zero_points=zero_points), kernel=kernel)


@pytest.mark.parametrize(
    "variant", [MAIN, build.Variant("bfloat16", 8), build.Variant("float", 2)], ids=lambda v: v.name
)
@pytest.mark.parametrize("kernel", ["decode", "mid", "wide"])
def test_unaligned_pointers_take_the_guarded_reads(variant, kernel):
    product = make_product(11 if kernel != "decode" else 6, 256, 64, element=variant.element, bits=variant.bits)
    check(product, kernel=kernel, skew=4)


@pytest.mark.quick
@pytest.mark.parametrize("variant", [MAIN], ids=lambda v: v.name)
def test_thread_order_does_not_change_a_bit(variant):
    for kernel, m in (("decode", 8), ("mid", 40), ("wide", 65)):
        product = make_product(m, 328, 72, block=64)
        results = [Emulator().run(product, kernel=kernel, seed=s, coresident=1 + s) for s in range(4)]
        assert all(np.array_equal(results[0], r) for r in results[1:])


@pytest.mark.quick
@pytest.mark.parametrize("variant", [MAIN], ids=lambda v: v.name)
def test_dispatch_follows_its_table(variant):
    emulator = Emulator()

    def chosen(m, n, multiprocessors=108):
        emulator.run(make_product(m, 64, n), multiprocessors=multiprocessors)
        return emulator.last_kernel().removeprefix("onnxq_half_4_")

    assert [chosen(m, 64) for m in (1, 8, 9, 63)] == ["decode_p32", "decode_p32", "mid", "mid"]
    assert chosen(64, 256, multiprocessors=4) == "wide"  # two CTAs fill half of four
    assert chosen(64, 256, multiprocessors=108) == "mid"


@pytest.mark.quick
@pytest.mark.parametrize("variant", [MAIN], ids=lambda v: v.name)
def test_extreme_values(variant):
    """Largest codes against largest zero points, scales at both ends of float16, zeros, negative scales."""
    product = make_product(4, 128, 32, zero_points=True)
    codes, zeros, scales = (np.array(a) for a in (product.codes, product.zero_points, product.scales))
    codes[:, :16], zeros[:, :16] = 15, 0
    codes[:, 16:], zeros[:, 16:] = 0, 15
    scales[:, ::4], scales[:, 1::4], scales[:, 2::4] = 2.0**-24, 0.0, -1.5
    for kernel in ("decode", "mid", "wide"):
        check(dataclasses.replace(product, codes=codes, zero_points=zeros, scales=scales), kernel=kernel)


@pytest.mark.quick
@pytest.mark.parametrize("variant", [MAIN], ids=lambda v: v.name)
@pytest.mark.parametrize("kernel", ["decode", "mid", "wide"])
@pytest.mark.parametrize("wrong", ["scale", "nibbles", "zero point", "block", "column"])
def test_the_bound_has_teeth(variant, kernel, wrong):
    """Each of these mistakes in the weight must leave the bound of the right product."""
    product = make_product(8, 256, 64, zero_points=True)
    change = {
        "scale": {"scales": (product.scales.astype(np.float32) * 1.01).astype(np.float16)},
        "nibbles": {"codes": product.codes[np.arange(256) ^ 1]},
        "zero point": {"zero_points": product.zero_points * 0 + 8},
        "block": {"scales": np.roll(product.scales, 1, axis=0)},
        "column": {"codes": np.roll(product.codes, 8, axis=1)},
    }[wrong]
    result = Emulator().run(dataclasses.replace(product, **change), kernel=kernel)
    assert np.any(np.abs(result.astype(np.float64) - product.exact()) > product.bound())


@pytest.mark.quick
@pytest.mark.parametrize("variant", [MAIN], ids=lambda v: v.name)
def test_a_width_without_kernels_is_an_error(variant):
    product = make_product(8, 256, 64)
    with pytest.raises(EmulationError, match="7-bit codes have no CUDA kernel"):
        Emulator().run(dataclasses.replace(product, bits=7))
