"""Products with weights that are indices into a codebook: every kernel against float64, and every entry bit for bit."""

import dataclasses

import numpy as np
import pytest
from emulation import ELEMENT_DTYPES, EmulationError, Emulator, build, make_product, with_codebook
from test_cuda_products import BLOCKS, check

VARIANTS = [v for v in build.all_variants() if v.codebook]
MAIN = build.Variant("half", 4, codebook=True)
TOKENS = {"decode": 7, "mid": 19, "wide": 66}

# NF4: the quantiles of a normal distribution, from the QLoRA paper (appendix E).
NF4 = np.array(
    [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
     -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
     0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0],
    np.float32,
)  # fmt: skip

# (kernel, m, k, n, entries short of 2^bits): whole tiles, ragged k and n, odd k.
SHAPES = [
    ("decode", 8, 384, 48, 0), ("decode", 5, 328, 37, 1), ("decode", 3, 203, 17, 0),
    ("mid", 33, 328, 50, 0), ("mid", 21, 203, 37, 1), ("wide", 130, 328, 137, 0), ("wide", 70, 203, 130, 1),
]  # fmt: skip


def quick(variants):
    return [pytest.param(v, marks=pytest.mark.quick) if v == MAIN else v for v in variants]


def learned(entries: int, seed: int) -> np.ndarray:
    """Values in no order, of either sign, over three orders of magnitude."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(entries) * 10.0 ** rng.uniform(-2, 1, entries)).astype(np.float32)


@pytest.mark.parametrize("variant", quick(VARIANTS), ids=lambda v: v.name)
@pytest.mark.parametrize(("kernel", "m", "k", "n", "short"), SHAPES)
def test_products(variant, kernel, m, k, n, short):
    """Blocks, entries, scale type, seed and truncating sums vary along the shapes."""
    at = SHAPES.index((kernel, m, k, n, short)) + variant.bits
    product = make_product(
        m, k, n, element=variant.element, bits=variant.bits, block=BLOCKS[at % len(BLOCKS)], seed=at,
        scales=np.float32 if at % 3 == 0 else np.float16,
    )  # fmt: skip
    product = with_codebook(product, learned((1 << variant.bits) - short, at))
    check(product, kernel=kernel, seed=at, truncate_sums=at % 2 == 1, coresident=1 + at % 2)


@pytest.mark.quick
@pytest.mark.parametrize("variant", [MAIN], ids=lambda v: v.name)
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("kernel", TOKENS)
def test_nf4_with_every_block_size(variant, block, kernel):
    check(with_codebook(make_product(TOKENS[kernel], 640, 40, block=block), NF4), kernel=kernel)


@pytest.mark.parametrize("variant", quick(VARIANTS), ids=lambda v: v.name)
@pytest.mark.parametrize("kernel", TOKENS)
def test_every_entry_comes_back_bit_for_bit(variant, kernel):
    """Tokens that are rows of the identity, scales of 1: the product is the weight itself. 16-bit values with every
    bit of their bytes in use, subnormal ones among them; float ones with 24 significant bits."""
    k, m, entries = 128, TOKENS[kernel], 1 << variant.bits
    values = np.float32([1.9990234, -1.0009766, 2.0**-24, -(2.0**-17), 0.33325195, -65504, 3.1415927, 1e-3])
    codebook = np.resize(np.concatenate([values, -values[::-1] / 1.7]), entries)
    product = with_codebook(make_product(m, k, 40, element=variant.element, bits=variant.bits, block=64), codebook)
    rows = np.random.default_rng(0).choice(k, m, replace=False)
    identity = np.eye(k, dtype=ELEMENT_DTYPES[variant.element])[rows]
    product = dataclasses.replace(product, activations=identity, scales=np.ones_like(product.scales))
    expected = codebook.astype(identity.dtype)[product.codes[rows]]
    assert len(np.unique(product.codes[rows])) == entries
    assert np.array_equal(Emulator().run(product, kernel=kernel), expected)


@pytest.mark.parametrize("variant", [MAIN, build.Variant("float", 3, codebook=True)], ids=lambda v: v.name)
@pytest.mark.parametrize("kernel", TOKENS)
def test_unaligned_pointers_take_the_guarded_reads(variant, kernel):
    product = make_product(TOKENS[kernel], 256, 64, element=variant.element, bits=variant.bits)
    check(with_codebook(product, learned(1 << variant.bits, 1)), kernel=kernel, skew=4)


@pytest.mark.quick
@pytest.mark.parametrize("variant", [MAIN], ids=lambda v: v.name)
@pytest.mark.parametrize("kernel", ["decode", "mid", "wide"])
@pytest.mark.parametrize("wrong", ["scale", "one entry", "upper half", "low byte", "block", "integers"])
def test_the_bound_has_teeth(variant, kernel, wrong):
    """Each of these mistakes in the weight must leave the bound of the right product."""
    product = with_codebook(make_product(8, 256, 64), NF4)
    one = np.where(np.arange(16) == 5, NF4[6], NF4)
    low_byte = (NF4.astype(np.float16).view(np.uint16) & 0xFF00).view(np.float16).astype(np.float32)
    change = {
        "scale": {"scales": (product.scales.astype(np.float32) * 1.01).astype(np.float16)},
        "one entry": {"codebook": one},
        "upper half": {"codes": product.codes ^ 8},
        "low byte": {"codebook": low_byte},
        "block": {"scales": np.roll(product.scales, 1, axis=0)},
        "integers": {"codebook": np.linspace(-1, 1, 16, dtype=np.float32)},
    }[wrong]
    result = Emulator().run(dataclasses.replace(product, **change), kernel=kernel)
    assert np.any(np.abs(result.astype(np.float64) - product.exact()) > product.bound())


@pytest.mark.quick
@pytest.mark.parametrize("bits", [3, 5])
def test_a_codebook_without_kernels_is_an_error(bits, tmp_path):
    """One entry more than three bits can tell apart; indices of five bits. Nothing gets as far as a kernel."""
    codebook = np.resize(NF4, 9 if bits == 3 else 32)
    product = dataclasses.replace(make_product(8, 64, 16, bits=bits), codebook=codebook, zero_points=None)
    with pytest.raises(EmulationError, match=f"{len(codebook)} entries for {bits}-bit indices has no CUDA kernel"):
        Emulator(folder=tmp_path).run(product)
