"""Answers of the PTX ISA for opcodes without memory, in Python integers and exact fractions."""

import math
from fractions import Fraction

# Floats as (significant bits, lowest exponent of a normal number, exponent bits).
HALF, BFLOAT, SINGLE = (11, -14, 5), (8, -126, 8), (24, -126, 8)


def value_of(bits: int, form) -> Fraction | float:
    precision, lowest, exponent_bits = form
    fraction = bits & ((1 << (precision - 1)) - 1)
    exponent = bits >> (precision - 1) & ((1 << exponent_bits) - 1)
    sign = -1 if bits >> (precision - 1 + exponent_bits) else 1
    if exponent == (1 << exponent_bits) - 1:
        return float("nan") if fraction else sign * float("inf")
    if exponent == 0:
        return sign * Fraction(fraction) * Fraction(2) ** (lowest - precision + 1)
    return sign * Fraction(fraction + (1 << (precision - 1))) * Fraction(2) ** (exponent + lowest - precision)


def nearest_even(x: Fraction | float, form, zero_sign=0) -> int:
    """The bits of x rounded once, ties to even. `zero_sign` decides the sign of an exact zero."""
    precision, lowest, exponent_bits = form
    top = precision - 1 + exponent_bits
    infinity = ((1 << exponent_bits) - 1) << (precision - 1)
    if isinstance(x, float):
        return 0x7FFF >> (16 - top - 1) if x != x else infinity | (x < 0) << top
    if x == 0:
        return zero_sign << top
    magnitude, exponent = abs(x), lowest
    while magnitude >= Fraction(2) ** (exponent + 1):
        exponent += 1
    unit = Fraction(2) ** (exponent - precision + 1)
    count = round(magnitude / unit)  # Python's round is ties to even
    bits = count + ((exponent - lowest) << (precision - 1))
    return min(bits, infinity) | (x < 0) << top


def signed(v: int, width=32) -> int:
    return v - (1 << width) if v >> (width - 1) else v


def pairs(operation):
    """Applies an operation on 16 bits to both halves."""
    return lambda *v: operation(*(x & 0xFFFF for x in v)) | operation(*(x >> 16 for x in v)) << 16


def rounded(form, operation):
    def apply(*bits):
        values = [value_of(b, form) for b in bits]
        if any(isinstance(v, float) for v in values):
            return nearest_even(float("nan"), form)  # the inputs below keep infinities apart
        # Doubles hold these operands, and their products, exactly: their zeros have IEEE's signs.
        signs = [-1.0 if b >> (form[0] - 1 + form[2]) else 1.0 for b in bits]
        as_doubles = operation(*(math.copysign(abs(float(v)), s) for v, s in zip(values, signs, strict=True)))
        return nearest_even(operation(*values), form, zero_sign=int(math.copysign(1.0, as_doubles) < 0))

    return apply


def permute(a, b, selector):
    source, result = (b << 32 | a).to_bytes(8, "little"), 0
    for i in range(4):
        nibble = selector >> 4 * i & 15
        byte = source[nibble & 7]
        result |= (byte if nibble < 8 else 0xFF * (byte >> 7)) << 8 * i
    return result


def lop3(a, b, c, table):
    return sum((table >> ((a >> i & 1) << 2 | (b >> i & 1) << 1 | (c >> i & 1)) & 1) << i for i in range(32))


def insert(field, base, position, length):
    position, length = position & 255, length & 255
    for i in range(length):
        if position + i < 32:
            base = base & ~(1 << position + i) | ((field >> i & 1) if i < 32 else 0) << position + i
    return base


ORACLES = {
    "add.s32": lambda a, b: a + b, "sub.s32": lambda a, b: a - b, "mul.lo.s32": lambda a, b: a * b,
    "mul.hi.s32": lambda a, b: signed(a) * signed(b) >> 32, "mad.lo.s32": lambda a, b, c: a * b + c,
    "max.s32": lambda a, b: max(a, b, key=signed), "not.b32": lambda a: ~a,
    "and.b32": lambda a, b: a & b, "or.b32": lambda a, b: a | b, "xor.b32": lambda a, b: a ^ b,
    "add.s64": lambda a, b: a + b, "and.b64": lambda a, b: a & b, "or.b64": lambda a, b: a | b,
    "mul.lo.s64": lambda a, b: a * b, "mul.wide.u32": lambda a, b: a * b,
    "mul.wide.s32": lambda a, b: signed(a) * signed(b),
    "shl.b32": lambda a, b: a << min(b, 32), "shr.u32": lambda a, b: a >> min(b, 32),
    "shr.s32": lambda a, b: signed(a) >> min(b, 32), "shl.b64": lambda a, b: a << min(b, 64),
    "shr.s64": lambda a, b: signed(a, 64) >> min(b, 64),
    "bfi.b32": insert, "prmt.b32": permute,
    "and.pred": lambda a, b: a and b, "or.pred": lambda a, b: a or b, "not.pred": lambda a: not a,
    "setp.eq.s32": lambda a, b: a == b, "setp.ne.s32": lambda a, b: a != b,
    "setp.lt.s32": lambda a, b: signed(a) < signed(b),
    "setp.ge.s32": lambda a, b: signed(a) >= signed(b), "setp.gt.s32": lambda a, b: signed(a) > signed(b),
    "setp.lt.u32": lambda a, b: a < b, "setp.gt.u32": lambda a, b: a > b,
    "setp.lt.s64": lambda a, b: signed(a, 64) < signed(b, 64),
    "setp.ge.s64": lambda a, b: signed(a, 64) >= signed(b, 64),
    "selp.b32": lambda a, b, p: a if p else b, "selp.b64": lambda a, b, p: a if p else b,
    "cvt.u64.u32": lambda a: a, "cvt.s64.s32": signed, "cvt.u16.u32": lambda a: a, "cvt.u32.u16": lambda a: a,
    "cvt.u32.u64": lambda a: a, "cvta.to.global.u64": lambda a: a,
    "cvt.rn.f32.s32": lambda a: nearest_even(Fraction(signed(a)), SINGLE),
    "cvt.rn.f16.f32": lambda a: nearest_even(value_of(a, SINGLE), HALF, a >> 31),
    "cvt.rn.bf16.f32": lambda a: nearest_even(value_of(a, SINGLE), BFLOAT, a >> 31),
    "cvt.f32.f16": lambda a: nearest_even(value_of(a, HALF), SINGLE, a >> 15),
    "add.f32": rounded(SINGLE, lambda a, b: a + b), "mul.f32": rounded(SINGLE, lambda a, b: a * b),
    "sub.f32": rounded(SINGLE, lambda a, b: a - b), "fma.rn.f32": rounded(SINGLE, lambda a, b, c: a * b + c),
    "sub.rn.f16x2": pairs(rounded(HALF, lambda a, b: a - b)),
    "fma.rn.f16x2": pairs(rounded(HALF, lambda a, b, c: a * b + c)),
    "fma.rn.bf16x2": pairs(rounded(BFLOAT, lambda a, b, c: a * b + c)),
}  # fmt: skip
LOP3_TABLE = 0xEA  # the others are test_every_truth_table's business
ORACLES["lop3.b32"] = lambda a, b, c: lop3(a, b, c, LOP3_TABLE)
FLOATS = {"add.f32": SINGLE, "sub.f32": SINGLE, "mul.f32": SINGLE, "fma.rn.f32": SINGLE, "sub.rn.f16x2": HALF,
          "fma.rn.f16x2": HALF, "fma.rn.bf16x2": BFLOAT, "cvt.rn.f16.f32": SINGLE, "cvt.rn.bf16.f32": SINGLE,
          "cvt.f32.f16": HALF}  # fmt: skip
