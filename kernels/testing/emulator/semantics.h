// What each PTX opcode computes, one function per opcode, named after it. The wording follows the PTX
// ISA's "Semantics" paragraphs; tests/kernels/cuda/test_opcodes.py checks each against them.
//
// Registers arrive as unsigned integers of their width.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace emu {

#define EMU_OP [[gnu::always_inline]] inline

EMU_OP float as_float(uint32_t v) {
  float f;
  std::memcpy(&f, &v, sizeof f);
  return f;
}
EMU_OP uint32_t as_bits(float f) {
  uint32_t v;
  std::memcpy(&v, &f, sizeof v);
  return v;
}

// Integers.
EMU_OP uint32_t add_s32(uint32_t a, uint32_t b) { return a + b; }
EMU_OP uint32_t sub_s32(uint32_t a, uint32_t b) { return a - b; }
EMU_OP uint32_t mul_lo_s32(uint32_t a, uint32_t b) { return a * b; }
EMU_OP uint32_t mul_hi_s32(uint32_t a, uint32_t b) {
  return static_cast<uint32_t>((int64_t{static_cast<int32_t>(a)} * static_cast<int32_t>(b)) >> 32);
}
EMU_OP uint32_t mad_lo_s32(uint32_t a, uint32_t b, uint32_t c) { return a * b + c; }
EMU_OP uint32_t max_s32(uint32_t a, uint32_t b) { return static_cast<int32_t>(a) > static_cast<int32_t>(b) ? a : b; }
EMU_OP uint32_t not_b32(uint32_t a) { return ~a; }
EMU_OP uint32_t xor_b32(uint32_t a, uint32_t b) { return a ^ b; }
EMU_OP uint32_t and_b32(uint32_t a, uint32_t b) { return a & b; }
EMU_OP uint32_t or_b32(uint32_t a, uint32_t b) { return a | b; }
EMU_OP uint64_t add_s64(uint64_t a, uint64_t b) { return a + b; }
EMU_OP uint64_t and_b64(uint64_t a, uint64_t b) { return a & b; }
EMU_OP uint64_t or_b64(uint64_t a, uint64_t b) { return a | b; }
EMU_OP uint64_t mul_lo_s64(uint64_t a, uint64_t b) { return a * b; }
EMU_OP uint64_t mul_wide_u32(uint32_t a, uint32_t b) { return uint64_t{a} * b; }
EMU_OP uint64_t mul_wide_s32(uint32_t a, uint32_t b) {
  return static_cast<uint64_t>(int64_t{static_cast<int32_t>(a)} * static_cast<int32_t>(b));
}

// Shift amounts beyond the width are clamped to the width, not taken modulo it.
EMU_OP uint32_t shl_b32(uint32_t a, uint32_t b) { return b > 31 ? 0 : a << b; }
EMU_OP uint64_t shl_b64(uint64_t a, uint32_t b) { return b > 63 ? 0 : a << b; }
EMU_OP uint64_t shr_s64(uint64_t a, uint32_t b) {
  return static_cast<uint64_t>(static_cast<int64_t>(a) >> (b > 63 ? 63 : b));
}
EMU_OP uint32_t shr_u32(uint32_t a, uint32_t b) { return b > 31 ? 0 : a >> b; }
EMU_OP uint32_t shr_s32(uint32_t a, uint32_t b) {
  return static_cast<uint32_t>(static_cast<int32_t>(a) >> (b > 31 ? 31 : b));
}

// Inserts the low `length` bits of `field` into `base` at `position`; both counts are one byte.
EMU_OP uint32_t bfi_b32(uint32_t field, uint32_t base, uint32_t position, uint32_t length) {
  position &= 0xff;
  length &= 0xff;
  uint32_t result = base;
  for (uint32_t i = 0; i < length && position + i < 32; ++i) {
    const uint32_t bit = i < 32 ? field >> i & 1 : 0;
    result = (result & ~(1u << (position + i))) | bit << (position + i);
  }
  return result;
}

// Selects four of the eight bytes {b, a}; a selector's top bit replicates the byte's sign instead.
EMU_OP uint32_t prmt_b32(uint32_t a, uint32_t b, uint32_t selector) {
  const uint64_t bytes = uint64_t{b} << 32 | a;
  uint32_t result = 0;
  for (int i = 0; i < 4; ++i) {
    const uint32_t nibble = selector >> (4 * i) & 0xf;
    uint32_t byte = bytes >> (8 * (nibble & 7)) & 0xff;
    if (nibble & 8) byte = byte & 0x80 ? 0xff : 0;
    result |= byte << (8 * i);
  }
  return result;
}

// A bitwise function of three inputs; bit 4a + 2b + c of the table is its value there.
EMU_OP uint32_t lop3_b32(uint32_t a, uint32_t b, uint32_t c, int table) {
  uint32_t result = 0;
  for (int i = 0; i < 8; ++i)
    if (table >> i & 1) result |= (i & 4 ? a : ~a) & (i & 2 ? b : ~b) & (i & 1 ? c : ~c);
  return result;
}

EMU_OP bool or_pred(bool a, bool b) { return a || b; }
EMU_OP bool and_pred(bool a, bool b) { return a && b; }
EMU_OP bool not_pred(bool a) { return !a; }
EMU_OP bool setp_ne_s32(uint32_t a, uint32_t b) { return a != b; }
EMU_OP bool setp_gt_s32(uint32_t a, uint32_t b) { return static_cast<int32_t>(a) > static_cast<int32_t>(b); }
EMU_OP bool setp_lt_s64(uint64_t a, uint64_t b) { return static_cast<int64_t>(a) < static_cast<int64_t>(b); }
EMU_OP bool setp_ge_s64(uint64_t a, uint64_t b) { return static_cast<int64_t>(a) >= static_cast<int64_t>(b); }
EMU_OP bool setp_lt_u32(uint32_t a, uint32_t b) { return a < b; }
EMU_OP uint64_t selp_b64(uint64_t a, uint64_t b, bool p) { return p ? a : b; }
EMU_OP uint32_t cvt_u32_u64(uint64_t a) { return static_cast<uint32_t>(a); }
EMU_OP bool setp_eq_s32(uint32_t a, uint32_t b) { return a == b; }
EMU_OP bool setp_lt_s32(uint32_t a, uint32_t b) { return static_cast<int32_t>(a) < static_cast<int32_t>(b); }
EMU_OP bool setp_ge_s32(uint32_t a, uint32_t b) { return static_cast<int32_t>(a) >= static_cast<int32_t>(b); }
EMU_OP bool setp_gt_u32(uint32_t a, uint32_t b) { return a > b; }
EMU_OP uint32_t selp_b32(uint32_t a, uint32_t b, bool p) { return p ? a : b; }

// Conversions between integers.
EMU_OP uint64_t sign_extend(uint32_t a) { return static_cast<uint64_t>(int64_t{static_cast<int32_t>(a)}); }
EMU_OP uint64_t cvt_s64_s32(uint32_t a) { return sign_extend(a); }
EMU_OP uint64_t cvt_u64_u32(uint32_t a) { return a; }
EMU_OP uint16_t cvt_u16_u32(uint32_t a) { return static_cast<uint16_t>(a); }
EMU_OP uint32_t cvt_u32_u16(uint16_t a) { return a; }
EMU_OP uint64_t cvta_to_global_u64(uint64_t a) { return a; }  // the global window starts at 0

// Halves and bfloats. _Float16 conversions of g++ round to nearest even and keep subnormals.
EMU_OP double half_value(uint16_t h) {
  _Float16 f;
  std::memcpy(&f, &h, sizeof f);
  return static_cast<double>(f);
}
EMU_OP uint16_t half_bits(double v) {
  const _Float16 f = static_cast<_Float16>(v);
  uint16_t h;
  std::memcpy(&h, &f, sizeof h);
  return h;
}
EMU_OP double bfloat_value(uint16_t h) { return as_float(uint32_t{h} << 16); }

// A double to bfloat16 in one rounding. Rounding to odd at 24 bits first keeps the second exact: the
// last bit then remembers whether anything was lost.
EMU_OP uint16_t bfloat_bits(double v) {
  float f = static_cast<float>(v);
  if (std::isnan(f)) return 0x7fff;  // the canonical NaN of cvt.rn.bf16.f32
  if (static_cast<double>(f) != v && std::isfinite(f) && (as_bits(f) & 1) == 0)
    f = std::nextafterf(f, static_cast<double>(f) < v ? INFINITY : -INFINITY);
  const uint32_t bits = as_bits(f);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

EMU_OP uint16_t cvt_rn_f16_f32(uint32_t a) { return half_bits(as_float(a)); }
EMU_OP uint16_t cvt_rn_bf16_f32(uint32_t a) { return bfloat_bits(as_float(a)); }
EMU_OP uint32_t cvt_f32_f16(uint16_t a) { return as_bits(static_cast<float>(half_value(a))); }

EMU_OP uint32_t add_f32(uint32_t a, uint32_t b) { return as_bits(as_float(a) + as_float(b)); }
EMU_OP uint32_t sub_f32(uint32_t a, uint32_t b) { return as_bits(as_float(a) - as_float(b)); }
EMU_OP uint32_t mul_f32(uint32_t a, uint32_t b) { return as_bits(as_float(a) * as_float(b)); }
EMU_OP uint32_t cvt_rn_f32_s32(uint32_t a) { return as_bits(static_cast<float>(static_cast<int32_t>(a))); }
EMU_OP uint32_t fma_rn_f32(uint32_t a, uint32_t b, uint32_t c) {
  return as_bits(std::fmaf(as_float(a), as_float(b), as_float(c)));
}

// a * b + c of halves or bfloats as a double rounded to odd: a * b is exact, and where the sum is not, the
// last bit is made odd, so that rounding once more to 11 or 8 bits gives what one rounding would.
EMU_OP double fma_to_odd(double a, double b, double c) {
  const double product = a * b;
  const double sum = product + c;
  if (!std::isfinite(sum)) return sum;
  const double back = sum - product;
  const double lost = (product - (sum - back)) + (c - back);  // Knuth's two-sum: exactly what is missing
  uint64_t bits;
  std::memcpy(&bits, &sum, sizeof bits);
  if (lost == 0.0 || (bits & 1) != 0) return sum;
  return std::nextafter(sum, lost > 0 ? INFINITY : -INFINITY);
}

EMU_OP uint32_t sub_rn_f16x2(uint32_t a, uint32_t b) {
  uint32_t r = 0;
  for (int s = 0; s < 32; s += 16)  // the difference of two halves is exact in a double
    r |= uint32_t{half_bits(half_value(a >> s & 0xffff) - half_value(b >> s & 0xffff))} << s;
  return r;
}
EMU_OP uint32_t fma_rn_f16x2(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t r = 0;
  for (int s = 0; s < 32; s += 16) {
    const double v =
        fma_to_odd(half_value(a >> s & 0xffff), half_value(b >> s & 0xffff), half_value(c >> s & 0xffff));
    r |= uint32_t{half_bits(v)} << s;
  }
  return r;
}
EMU_OP uint32_t fma_rn_bf16x2(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t r = 0;
  for (int s = 0; s < 32; s += 16) {
    const double v =
        fma_to_odd(bfloat_value(a >> s & 0xffff), bfloat_value(b >> s & 0xffff), bfloat_value(c >> s & 0xffff));
    r |= uint32_t{bfloat_bits(v)} << s;
  }
  return r;
}

#undef EMU_OP

}  // namespace emu
