// AVX-512 VNNI registers for the templates of panel_reader.h: one register holds a whole line.
#pragma once

#include <immintrin.h>

#include "cpu/panel.h"

namespace onnxq::cpu {

struct Avx512 {
  using Int = __m512i;
  using Float = __m512;
  static constexpr int kParts = 1;
  static constexpr int kColumns = 16;
  static constexpr int kBytes = 64;
  // 6 rows x 4 panels of sums are 24 registers; 4 loads of codes and 6 broadcasts feed 24 dot products.
  static constexpr int kStripPanels = 4;
  static constexpr int kRegisterRows = 6;
  static constexpr bool kDotsFields = true;
  static constexpr int kFloatRows = 12;

  static Int load_codes(const uint8_t* p) { return _mm512_load_si512(p); }
  static void store_codes(uint8_t* p, Int v) { _mm512_store_si512(p, v); }
  static Int and_bytes(Int v, int mask) { return _mm512_and_si512(v, _mm512_set1_epi8(static_cast<char>(mask))); }
  static Int or_bits(Int a, Int b) { return _mm512_or_si512(a, b); }
  static Int shift_right(Int v, int bits) { return _mm512_srli_epi16(v, static_cast<unsigned>(bits)); }
  static Int shift_left(Int v, int bits) { return _mm512_slli_epi16(v, static_cast<unsigned>(bits)); }

  static Int broadcast(int32_t v) { return _mm512_set1_epi32(v); }
  static Int widen_bytes(const uint8_t* p) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  // a * b where a is 0 .. 255 and b fits int16 (|sum of 256 codes| <= 32512): the upper halves of the
  // lanes of a are 0.
  static Int multiply_small(Int a, Int b) { return _mm512_madd_epi16(a, b); }
  static Int add(Int a, Int b) { return _mm512_add_epi32(a, b); }
  static Int shift_right_signed(Int v, int bits) { return _mm512_srai_epi32(v, static_cast<unsigned>(bits)); }
  static Int subtract(Int a, Int b) { return _mm512_sub_epi32(a, b); }
  static Int and_lanes(Int v, int mask) { return _mm512_and_si512(v, _mm512_set1_epi32(mask)); }
  static Int shift_right_lanes(Int v, int bits) { return _mm512_srli_epi32(v, static_cast<unsigned>(bits)); }

  // sums + codes x group, 4 products a lane: codes unsigned, group signed.
  // In assembly because GCC 12 keeps the sums of a register tile on the stack when it is given the
  // intrinsic (_mm512_dpbusd_epi32), and the product is then three times slower.
  template <int kBits>
  static Int dot(Int sums, Int codes, Int group) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(codes), "v"(group));
    return sums;
  }

  static Float broadcast(float v) { return _mm512_set1_ps(v); }
  static Float load(const float* p) { return _mm512_loadu_ps(p); }
  static Float load_half(const uint16_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static void store(float* p, Float v) { _mm512_storeu_ps(p, v); }
  static void store_half(uint16_t* p, Float v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
  }
  static Float to_float(Int v) { return _mm512_cvtepi32_ps(v); }
  static Float multiply(Float a, Float b) { return _mm512_mul_ps(a, b); }
  static Float fma(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }
  // table[the low 4 bits of index].
  static Float look_up(const float* table, Int index) { return _mm512_permutexvar_ps(index, _mm512_load_ps(table)); }
};

}  // namespace onnxq::cpu
