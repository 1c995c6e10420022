// Codes of a panel, unpacked to bytes: [depth / 4][16 columns][4], the order of the panel's own lines.
#pragma once

#include "cpu/avx512.h"

namespace onnxq::cpu::avx512 {

// `bytes` of packed lines of one panel become 8 / bits times as many.
template <int kBits>
inline void unpack_lines(const uint8_t* lines, int64_t bytes, uint8_t* out) {
  constexpr int kFields = 8 / kBits;
  const __m512i mask = _mm512_set1_epi8(static_cast<char>((1 << kBits) - 1));
  for (int64_t at = 0; at < bytes; at += kLineBytes)
#pragma GCC unroll 4
    for (int f = 0; f < kFields; ++f, out += kLineBytes) {
      const __m512i line = _mm512_load_si512(lines + at);
      // A 16-bit shift drags bits of the upper byte down into the lower one; the mask drops them.
      _mm512_store_si512(out, _mm512_and_si512(_mm512_srli_epi16(line, f * kBits), mask));
    }
}

inline void unpack(const PackedWeight& weight, const uint8_t* lines, int64_t blocks, uint8_t* out) {
  const int64_t bytes = blocks * weight.block_bytes();
  if (weight.bits == 2) return unpack_lines<2>(lines, bytes, out);
  if (weight.bits == 4) return unpack_lines<4>(lines, bytes, out);
  std::memcpy(out, lines, static_cast<std::size_t>(bytes));
}

}  // namespace onnxq::cpu::avx512
