// Codes of a panel, unpacked to bytes: [depth / 4][16 columns][4], the order of the panel's own lines.
#pragma once

#include "cpu/avx512.h"
#include "cpu/unroll.h"

namespace onnxq::cpu::avx512 {

// Field f of a line of codes. A 16-bit shift drags bits of the upper byte down; the mask drops them.
template <int kBits>
ONNXQ_INLINE inline __m512i field(const uint8_t* lines, int group) {
  constexpr int kFields = 8 / kBits;
  const __m512i line = _mm512_load_si512(lines + group / kFields * kLineBytes);
  if constexpr (kBits == 8) return line;
  const __m512i mask = _mm512_set1_epi8(static_cast<char>((1 << kBits) - 1));
  return _mm512_and_si512(_mm512_srli_epi16(line, static_cast<unsigned>(group % kFields * kBits)), mask);
}

// The codes of group `group` of a block.
template <int kLow, int kHigh>
ONNXQ_INLINE inline __m512i group_codes(const uint8_t* low, const uint8_t* high, int group) {
  const __m512i codes = field<kLow>(low, group);
  if constexpr (kHigh == 0) {
    return codes;
  } else {
    return _mm512_or_si512(codes, _mm512_slli_epi16(field<kHigh>(high, group), kLow));
  }
}

template <int kLow, int kHigh>
inline void unpack_blocks(const PackedWeight& weight, int64_t panel, int64_t block, int64_t blocks, uint8_t* out) {
  constexpr int kUnroll = 4;  // a block has at least 4 groups
  for (int64_t b = block; b < block + blocks; ++b) {
    const uint8_t* low = weight.low_lines(panel, b);
    const uint8_t* high = kHigh > 0 ? weight.high_lines(panel, b) : nullptr;
    for (int g = 0; g < weight.block / kGroup; g += kUnroll, out += kUnroll * kLineBytes)
      unrolled<kUnroll>([&](auto i) ONNXQ_INLINE {
        _mm512_store_si512(out + i * kLineBytes, group_codes<kLow, kHigh>(low, high, g + i));
      });
  }
}

// `blocks` blocks of a panel from `block` on.
inline void unpack(const PackedWeight& weight, int64_t panel, int64_t block, int64_t blocks, uint8_t* out) {
  switch (weight.bits) {
    case 2: return unpack_blocks<2, 0>(weight, panel, block, blocks, out);
    case 3: return unpack_blocks<2, 1>(weight, panel, block, blocks, out);
    case 4: return unpack_blocks<4, 0>(weight, panel, block, blocks, out);
    case 5: return unpack_blocks<4, 1>(weight, panel, block, blocks, out);
    case 6: return unpack_blocks<4, 2>(weight, panel, block, blocks, out);
    default: return unpack_blocks<8, 0>(weight, panel, block, blocks, out);
  }
}

}  // namespace onnxq::cpu::avx512
