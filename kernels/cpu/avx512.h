// Pieces that the AVX-512 files share: loads of one block of a panel. Included only by files compiled
// with AVX-512 flags.
#pragma once

#include <immintrin.h>

#include <cstring>

#include "cpu/kernels.h"

namespace onnxq::cpu::avx512 {

// Four activation codes in every lane: what one lane of a line of codes is multiplied by.
inline __m512i broadcast_group(const int8_t* a) {
  int32_t group;
  std::memcpy(&group, a, sizeof(group));
  return _mm512_set1_epi32(group);
}

// sums + codes x group, 4 products a lane: codes unsigned, group signed.
// Written in assembly because GCC 12 keeps the sums of a register tile on the stack when it is given the
// intrinsic (_mm512_dpbusd_epi32): three times slower.
inline __m512i dot(__m512i sums, __m512i codes, __m512i group) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(codes), "v"(group));
  return sums;
}

// What stands beside the codes of one block of a panel: 16 scales and 16 zero points.
class BlockParameters {
 public:
  BlockParameters(const PackedWeight& weight, int64_t panel)
      : half_(weight.half_scales), scales_(weight.panel_scales(panel)), zero_points_(weight.panel_zero_points(panel)) {}

  __m512 scales(int64_t block) const {
    if (half_) {
      const auto* half = reinterpret_cast<const __m256i*>(scales_) + block;
      return _mm512_cvtph_ps(_mm256_load_si256(half));
    }
    return _mm512_load_ps(scales_ + block * kPanelColumns * sizeof(float));
  }

  __m512i zero_points(int64_t block) const {  // int32 [16]
    const auto* bytes = reinterpret_cast<const __m128i*>(zero_points_) + block;
    return _mm512_cvtepu8_epi32(_mm_load_si128(bytes));
  }

  // Where the integer product of a block starts: the correction for unsigned codes. With zero points
  // it is zero_point * correction; both fit int16 (|sum of 256 codes| <= 32512), which is one vpdpwssd
  // because the upper half of a zero point lane is 0.
  template <bool kZeroPoints>
  __m512i start(int64_t block, int32_t correction) const {
    const __m512i broadcast = _mm512_set1_epi32(correction);
    if constexpr (kZeroPoints) return _mm512_dpwssd_epi32(_mm512_setzero_si512(), zero_points(block), broadcast);
    return broadcast;
  }

 private:
  bool half_;
  const uint8_t* scales_;
  const uint8_t* zero_points_;
};

// y + float(dot) * w_scale * a_scale, rounded as the scalar kernel rounds it.
inline __m512 accumulate(__m512i dot, __m512 w_scale, float a_scale, __m512 y) {
  return _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(dot), w_scale), _mm512_set1_ps(a_scale), y);
}

}  // namespace onnxq::cpu::avx512
