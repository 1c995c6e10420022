// AVX2 registers for the templates of panel_reader.h: two registers hold a line. With VNNI (the AVX-VNNI
// encoding) a dot product is one instruction; without, it is built from 16-bit products.
#pragma once

#include <immintrin.h>

#include "cpu/panel.h"

namespace onnxq::cpu {

template <bool kVnni>
struct Avx2 {
  using Int = __m256i;
  using Float = __m256;
  static constexpr int kParts = 2;
  static constexpr int kColumns = 8;
  static constexpr int kBytes = 32;
  // 12 sums (8 without VNNI, whose products need room) + 2 registers of codes + 1 broadcast, of 16.
  static constexpr int kStripPanels = 1;
  static constexpr int kRegisterRows = kVnni ? 6 : 4;
  static constexpr bool kDotsFields = kVnni;
  static constexpr int kFloatRows = 6;

  static Int load_codes(const uint8_t* p) { return _mm256_load_si256(reinterpret_cast<const Int*>(p)); }
  static void store_codes(uint8_t* p, Int v) { _mm256_store_si256(reinterpret_cast<Int*>(p), v); }
  static Int and_bytes(Int v, int mask) { return _mm256_and_si256(v, _mm256_set1_epi8(static_cast<char>(mask))); }
  static Int or_bits(Int a, Int b) { return _mm256_or_si256(a, b); }
  static Int shift_right(Int v, int bits) { return _mm256_srli_epi16(v, bits); }
  static Int shift_left(Int v, int bits) { return _mm256_slli_epi16(v, bits); }

  static Int broadcast(int32_t v) { return _mm256_set1_epi32(v); }
  static Int widen_bytes(const uint8_t* p) {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  }
  // a * b where a is 0 .. 255 and b fits int16: the upper halves of the lanes of a are 0.
  static Int multiply_small(Int a, Int b) { return _mm256_madd_epi16(a, b); }
  static Int add(Int a, Int b) { return _mm256_add_epi32(a, b); }
  static Int shift_right_signed(Int v, int bits) { return _mm256_srai_epi32(v, bits); }
  static Int subtract(Int a, Int b) { return _mm256_sub_epi32(a, b); }
  static Int and_lanes(Int v, int mask) { return _mm256_and_si256(v, _mm256_set1_epi32(mask)); }
  static Int shift_right_lanes(Int v, int bits) { return _mm256_srli_epi32(v, bits); }

  // sums + codes x group, 4 products a lane: codes unsigned below 2^kBits, group signed.
  template <int kBits>
  static Int dot(Int sums, Int codes, Int group) {
    if constexpr (kVnni) {
      __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sums) : "x"(codes), "x"(group));
      return sums;
    } else if constexpr (kBits <= 6) {
      // Pairs of products reach 2 * 63 * 127 = 16002: vpmaddubsw does not saturate.
      const Int pairs = _mm256_maddubs_epi16(codes, group);
      return _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    } else {
      // Eight bits would (2 * 255 * 127 > 32767): upper and lower nibble apart.
      const Int upper = and_bytes(shift_right(codes, 4), 0x0f);
      const Int high = _mm256_madd_epi16(_mm256_maddubs_epi16(upper, group), _mm256_set1_epi16(16));
      return _mm256_add_epi32(dot<4>(sums, and_bytes(codes, 0x0f), group), high);
    }
  }

  static Float broadcast(float v) { return _mm256_set1_ps(v); }
  static Float load(const float* p) { return _mm256_loadu_ps(p); }
  static Float load_half(const uint16_t* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static void store(float* p, Float v) { _mm256_storeu_ps(p, v); }
  static void store_half(uint16_t* p, Float v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
  }
  static Float to_float(Int v) { return _mm256_cvtepi32_ps(v); }
  static Float multiply(Float a, Float b) { return _mm256_mul_ps(a, b); }
  static Float fma(Float a, Float b, Float c) { return _mm256_fmadd_ps(a, b, c); }
  // table[the low 4 bits of index]: the permutation sees 3 bits of the index, bit 3 chooses the half.
  static Float look_up(const float* table, Int index) {
    const Float lower = _mm256_permutevar8x32_ps(_mm256_load_ps(table), index);
    const Float upper = _mm256_permutevar8x32_ps(_mm256_load_ps(table + 8), index);
    return _mm256_blendv_ps(lower, upper, _mm256_castsi256_ps(_mm256_slli_epi32(index, 28)));
  }
};

}  // namespace onnxq::cpu
