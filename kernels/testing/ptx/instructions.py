"""Every opcode that our kernels may contain, and the C++ that means the same.

The table is exact: "add.s32" is known, "add.s32.sat" is not. Semantics proper (rounding, shifts
beyond the width, truth tables) are functions of emulator/semantics.h, named after the opcode and
unit-tested against the PTX specification by tests/kernels/cuda/test_opcodes.py, which also checks
that the kernels use every opcode of this table and that each one has a test.

An operand's kind says how many bits of a register it takes and what immediates mean:
    p  predicate   h  16 bits   w  32 bits   d  64 bits   i  an immediate
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Value:
    """`result = function(operands...)`: no memory, no other thread."""

    function: str
    result: str
    operands: str


@dataclass(frozen=True, slots=True)
class Memory:
    """A load or store of `count` elements of `size` bytes; `space` is param, global or shared."""

    space: str
    store: bool
    size: int
    count: int


@dataclass(frozen=True, slots=True)
class Special:
    """Written out by emit.py under this name."""

    name: str


Semantics = Value | Memory | Special

OPCODES: dict[str, Semantics] = {}


def _values(result: str, operands: str, *opcodes: str) -> None:
    for opcode in opcodes:
        OPCODES[opcode] = Value(opcode.replace(".", "_"), result, operands)


# Integers wrap around; .s32 and .u32 differ where order or sign matters.
_values("w", "ww", "add.s32", "sub.s32", "mul.lo.s32", "mul.hi.s32", "max.s32")
_values("w", "ww", "and.b32", "or.b32", "xor.b32", "shl.b32", "shr.u32", "shr.s32")
_values("w", "w", "not.b32")
_values("w", "www", "mad.lo.s32")
_values("d", "dd", "add.s64", "and.b64", "or.b64", "mul.lo.s64")
_values("d", "dw", "shl.b64", "shr.s64")
_values("d", "ww", "mul.wide.s32", "mul.wide.u32")
_values("w", "wwww", "bfi.b32")
_values("w", "www", "prmt.b32")
_values("w", "wwwi", "lop3.b32")
_values("p", "p", "not.pred")
_values("p", "pp", "and.pred", "or.pred")
_values("p", "ww", "setp.eq.s32", "setp.ne.s32", "setp.lt.s32", "setp.ge.s32", "setp.gt.s32")
_values("p", "ww", "setp.lt.u32", "setp.gt.u32")
_values("p", "dd", "setp.lt.s64", "setp.ge.s64")
_values("w", "wwp", "selp.b32")
_values("d", "ddp", "selp.b64")

# Conversions. Narrowing integers drops high bits; float narrowing rounds to nearest even.
_values("d", "w", "cvt.u64.u32", "cvt.s64.s32")
_values("h", "w", "cvt.u16.u32", "cvt.rn.f16.f32", "cvt.rn.bf16.f32")
_values("w", "h", "cvt.u32.u16", "cvt.f32.f16")
_values("w", "w", "cvt.rn.f32.s32")
_values("w", "d", "cvt.u32.u64")
_values("d", "d", "cvta.to.global.u64")

# Floats: each operation rounds once, to nearest even; fma does not round its product.
_values("w", "ww", "add.f32", "sub.f32", "mul.f32", "sub.rn.f16x2")
_values("w", "www", "fma.rn.f32", "fma.rn.f16x2", "fma.rn.bf16x2")

for _opcode in ("mov.u16", "mov.u32", "mov.f32", "mov.b32", "mov.u64", "mov.b64"):
    OPCODES[_opcode] = Special("mov")  # b32 also splits and joins pairs of 16 bits
OPCODES["bra"] = OPCODES["bra.uni"] = Special("branch")
OPCODES["ret"] = Special("ret")
OPCODES["bar.sync"] = Special("barrier")
OPCODES["cp.async.cg.shared.global"] = Special("copy_async")
OPCODES["cp.async.commit_group"] = Special("copy_async_commit")
OPCODES["cp.async.wait_group"] = Special("copy_async_wait")
OPCODES["mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32"] = Special("mma_half")
OPCODES["mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32"] = Special("mma_bfloat")


def _memory(space: str, store: bool, *forms: str) -> None:
    """`forms` are "modifiers|vector|type"; cache hints change nothing that the emulator models."""
    verb = "st" if store else "ld"
    for form in forms:
        modifiers, vector, kind = form.split("|")
        opcode = ".".join(part for part in (verb, space, modifiers, vector, kind) if part)
        size = int(kind[1:]) // 8
        OPCODES[opcode] = Memory(space, store, size, int(vector[1:]) if vector else 1)


_memory("param", False, "||u32", "||s32", "||u64", "|v2|u32")
_memory(
    "global",
    False,
    "||u8",
    "||u16",
    "||s32",
    "||u64",
    "||f32",
    "nc||u16",
    "nc||u32",
    "nc|v2|u32",
    "nc|v4|u32",
    "nc|v4|f32",
)
_memory("global", False, *(f"nc.L1::no_allocate.L2::128B|{v}|u32" for v in ("", "v2", "v4")))
_memory("global", True, "||u16", "||u32", "||f32", "|v2|u32", "|v4|u32", "|v4|f32")
_memory("shared", False, "||u16", "||u32", "||f32", "|v2|u32", "|v4|u32", "|v4|f32")
_memory("shared", True, "||f32", "|v2|u32")
