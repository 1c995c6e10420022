"""Run the CUDA kernels' PTX on the CPU emulator, and say what the answer should have been.

A `Product` is one matmul with all its data; `run` sends it through the library's own repacking, dispatch and
launch code into the emulated driver; `bound` is what the float arithmetic may differ from float64.
"""

from __future__ import annotations

import ctypes
import dataclasses
import os
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import ml_dtypes
import numpy as np

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "kernels" / "testing"))
import build  # noqa: E402

ELEMENT_DTYPES = {"half": np.float16, "bfloat16": ml_dtypes.bfloat16, "float": np.float32}
KINDS = {"auto": -1, "decode": 0, "mid": 1, "wide": 2}


class EmulationError(Exception):
    """The launch failed: the emulator's reports, or an error of the library."""


class _Options(ctypes.Structure):
    _fields_ = [
        ("seed", ctypes.c_uint64),
        ("coresident", ctypes.c_uint32),
        ("shuffle", ctypes.c_bool),
        ("strict_global", ctypes.c_bool),
        ("truncate_sums", ctypes.c_bool),
        ("count", ctypes.c_bool),
    ]


class _ProductCase(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("activations", "codes", "scales", "zero_points", "codebook", "output")),
        *((name, ctypes.c_int64) for name in ("m", "k", "n", "entries")),
        *((name, ctypes.c_int32)
          for name in ("bits", "block", "element", "is_signed", "transposed", "half_scales", "kind", "skew")),
    ]  # fmt: skip


class _SiteCount(ctypes.Structure):
    _fields_ = [
        ("site", ctypes.c_uint32),
        ("space", ctypes.c_uint8),
        ("access_bytes", ctypes.c_uint32),
        *((name, ctypes.c_uint64)
          for name in ("requests", "useful_bytes", "sectors", "wavefronts", "ideal_wavefronts")),
    ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class SiteCount:
    """What one memory instruction of the last launch cost; see emulator/counters.h."""

    site: int
    space: str  # "global read", "global write", "shared"
    opcode: str
    requests: int
    useful: float  # share of the moved sectors' bytes that were asked for
    conflicts: int  # wavefronts beyond the ideal


@dataclass(frozen=True)
class Product:
    """activations [m, k] times (codes - zero_points) * scales, blocks along k."""

    activations: np.ndarray
    codes: np.ndarray  # unsigned [k, n]
    scales: np.ndarray  # float16 or float32 [ceil(k / block), n]
    zero_points: np.ndarray | None  # unsigned [ceil(k / block), n]; None: signed codes, stored + 2^(bits-1)
    bits: int
    block: int
    element: str
    transposed: bool = False
    codebook: np.ndarray | None = None  # float32 [entries]: codes are indices into it

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.activations.shape[0], *self.codes.shape

    @property
    def variant(self) -> build.Variant:
        return build.Variant(self.element, self.bits, codebook=self.codebook is not None)

    def weight(self) -> np.ndarray:
        """float64 [k, n]; scales as CastLike(scales, A) gives them."""
        rows = np.arange(self.codes.shape[0]) // self.block
        scales = self.scales.astype(ELEMENT_DTYPES[self.element]).astype(np.float64)[rows]
        if self.codebook is not None:
            return self.codebook.astype(ELEMENT_DTYPES[self.element]).astype(np.float64)[self.codes] * scales
        zero = 1 << (self.bits - 1) if self.zero_points is None else self.zero_points[rows].astype(np.float64)
        return (self.codes - zero) * scales

    def exact(self) -> np.ndarray:
        return self.activations.astype(np.float64) @ self.weight()

    def bound(self) -> np.ndarray:
        """|result - exact| may reach this: one rounding of the output, and float32 sums.

        A sum of k products loses at most k * 2^-23 of the sum of their magnitudes where each addition
        truncates (tensor cores; rounding halves that), the scaling of block sums one rounding each.
        """
        unit = {"half": 2.0**-11, "bfloat16": 2.0**-8, "float": 2.0**-24}[self.element]
        tiny = {"half": 2.0**-25, "bfloat16": 0.0, "float": 0.0}[self.element]
        magnitude = np.abs(self.activations.astype(np.float64)) @ np.abs(self.weight())
        sums = (self.codes.shape[0] + 8) * 2.0**-23 * magnitude
        return unit * (np.abs(self.exact()) + sums) + sums + tiny


def make_product(
    m: int, k: int, n: int, *, element="half", bits=4, block=32, zero_points=False, transposed=False,
    scales=np.float16, seed=0,
) -> Product:  # fmt: skip
    """Codes and zero points over their whole range, scales within a factor of four of each other."""
    rng = np.random.default_rng(seed)
    blocks = -(-k // block)
    return Product(
        activations=rng.standard_normal((m, k)).astype(ELEMENT_DTYPES[element]),
        codes=rng.integers(0, 1 << bits, (k, n)),
        scales=(rng.uniform(0.25, 1.0, (blocks, n)) / (1 << bits)).astype(scales),
        zero_points=rng.integers(0, 1 << bits, (blocks, n)) if zero_points else None,
        bits=bits, block=block, element=element, transposed=transposed,
    )  # fmt: skip


def with_codebook(product: Product, codebook: np.ndarray) -> Product:
    """The product with its codes as indices into `codebook`, those beyond its end wrapped around."""
    return dataclasses.replace(product, codes=product.codes % len(codebook), zero_points=None, codebook=codebook)


def pack_codes(codes: np.ndarray, bits: int) -> np.ndarray:
    """ONNX's order: row-major over the whole tensor, low bits first in a byte."""
    flat = np.unpackbits(codes.astype(np.uint8).reshape(-1, 1), axis=1, bitorder="little")[:, :bits]
    return np.packbits(flat.ravel(), bitorder="little")


@dataclass
class Emulator:
    """The harness and the emulated driver of one set of translated kernels."""

    folder: Path | None = None  # None: the variants of this checkout, built as needed
    variants: set[str] = field(default_factory=set)

    def run(self, product: Product, *, kernel="auto", skew=0, seed=0, **options) -> np.ndarray:
        """The product, computed by the translated kernel.

        Args:
            kernel: "auto", or one of decode, mid, wide whatever dispatch would say.
            skew: bytes by which activations and output miss 16-byte alignment.
            options: coresident, truncate_sums, count, multiprocessors.
        Raises:
            EmulationError: any report of the emulator, any error of the library.
        """
        self._configure(product, seed, options)
        case, output, _alive = _case(product, KINDS[kernel], skew)
        if _harness().harness_matmul(ctypes.byref(case)) != 0:
            raise EmulationError(_harness().harness_error().decode())
        return output

    def gather(self, product: Product, indices: np.ndarray, *, skew=0, seed=0, **options) -> np.ndarray:
        """Rows of the table that is the transposed weight of `product` (its activations are not used)."""
        self._configure(product, seed, options)
        case, _, _alive = _case(product, -1, skew)
        output = np.zeros((indices.size, product.codes.shape[0]), product.activations.dtype)
        case.output = output.ctypes.data
        failed = _harness().harness_gather(
            ctypes.byref(case), indices.ctypes.data_as(ctypes.c_void_p), indices.dtype == np.int64,
            ctypes.c_int64(indices.size),
        )  # fmt: skip
        if failed:
            raise EmulationError(_harness().harness_error().decode())
        return output

    def _configure(self, product: Product, seed: int, options: dict) -> None:
        if on_hardware():
            return
        folder = self.folder or build.emulated_kernels(product.variant).parent
        switches = (options.get(name, False) for name in ("truncate_sums", "count"))
        emulation = _Options(seed, options.get("coresident", 1), True, True, *switches)
        multiprocessors = options.get("multiprocessors", 108)
        _driver().emu_configure(str(folder).encode(), ctypes.byref(emulation), multiprocessors)

    @staticmethod
    def last_kernel() -> str:
        return _driver().emu_last_kernel().decode()

    @staticmethod
    def counts() -> list[SiteCount]:
        """Of the last launch, if it ran with count=True."""
        found, raw, opcode = [], _SiteCount(), ctypes.c_char_p()
        spaces = ("global read", "global write", "shared")
        for i in range(_driver().emu_count(1 << 62, None, None)):
            _driver().emu_count(i, ctypes.byref(raw), ctypes.byref(opcode))
            useful = raw.useful_bytes / (32 * raw.sectors) if raw.sectors else 1.0
            found.append(
                SiteCount(raw.site, spaces[raw.space], opcode.value.decode(), raw.requests, useful,
                          raw.wavefronts - raw.ideal_wavefronts)
            )  # fmt: skip
        return found


def repacked(product: Product) -> tuple[np.ndarray, int, int]:
    """The device bytes of a weight, and where scales and zero points begin in them."""
    case, _, _alive = _case(product, -1, 0)
    offsets = (ctypes.c_int64 * 2)()
    size = _harness().harness_repack(ctypes.byref(case), None, ctypes.c_int64(0), offsets)
    data = np.empty(size, np.uint8)
    _harness().harness_repack(ctypes.byref(case), data.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(size), offsets)
    return data, offsets[0], offsets[1]


def _case(product: Product, kind: int, skew: int):
    m, k, n = product.shape
    codes, scales, zeros = product.codes, product.scales, product.zero_points
    signed = zeros is None and product.codebook is None
    if signed:
        codes = codes ^ (1 << (product.bits - 1))  # two's complement of code - 2^(bits-1)
    if product.transposed:
        codes, scales, zeros = codes.T, scales.T, None if zeros is None else zeros.T
    arrays = [
        np.ascontiguousarray(product.activations),
        pack_codes(codes, product.bits),
        np.ascontiguousarray(scales),
        None if zeros is None else pack_codes(zeros, product.bits),
        None if product.codebook is None else np.ascontiguousarray(product.codebook, np.float32),
        np.zeros((m, n), product.activations.dtype),
    ]
    pointers = [None if a is None else a.ctypes.data for a in arrays]
    entries = 0 if product.codebook is None else len(product.codebook)
    numbers = [m, k, n, entries, product.bits, product.block, list(ELEMENT_DTYPES).index(product.element), signed,
               product.transposed, product.scales.dtype == np.float16, kind, skew]  # fmt: skip
    return _ProductCase(*pointers, *map(int, numbers)), arrays[-1], arrays


@cache
def _driver() -> ctypes.CDLL:
    library = ctypes.CDLL(str(build.emulated_driver()))
    for name in ("emu_messages", "emu_last_kernel"):
        getattr(library, name).restype = ctypes.c_char_p
    library.emu_count.restype = ctypes.c_size_t
    library.emu_count.argtypes = [ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p]
    return library


def on_hardware() -> bool:
    """gpu_check runs the same products on a real driver."""
    return "ONNXQ_TEST_ARCHITECTURE" in os.environ


@cache
def _harness() -> ctypes.CDLL:
    os.environ["ONNXQ_CUDA_DRIVER"] = "libcuda.so.1" if on_hardware() else str(build.emulated_driver())
    library = ctypes.CDLL(str(build.harness()))
    library.harness_error.restype = ctypes.c_char_p
    library.harness_repack.restype = ctypes.c_int64
    return library
