// The byte shuffles of loading a weight: 16 packed codes to bytes, and the two transpositions into groups
// of 4. Baseline instructions only (SSE2 is part of x86-64), with plain C++ for everything else.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace onnxq::cpu {

#if defined(__SSE2__)

// 16 codes of kBits bits, from a byte boundary on.
template <int kBits>
inline __m128i unpack_16(const uint8_t* bytes) {
  if constexpr (kBits == 8) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes));
  } else if constexpr (kBits == 4) {
    const __m128i x = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes));
    const __m128i mask = _mm_set1_epi8(0x0f);
    return _mm_unpacklo_epi8(_mm_and_si128(x, mask), _mm_and_si128(_mm_srli_epi16(x, 4), mask));
  } else {
    int32_t word;
    std::memcpy(&word, bytes, sizeof(word));
    const __m128i x = _mm_cvtsi32_si128(word);
    const __m128i mask = _mm_set1_epi8(0x03);
    const auto field = [&](int f) { return _mm_and_si128(_mm_srli_epi16(x, 2 * f), mask); };
    return _mm_unpacklo_epi16(_mm_unpacklo_epi8(field(0), field(1)), _mm_unpacklo_epi8(field(2), field(3)));
  }
}

// out[c][i] = row i's code c: 4 rows of 16, `stride` packed bytes apart.
template <int kBits>
inline void interleave_rows(const uint8_t* bytes, int64_t stride, uint8_t* out) {
  const __m128i r0 = unpack_16<kBits>(bytes), r1 = unpack_16<kBits>(bytes + stride);
  const __m128i r2 = unpack_16<kBits>(bytes + 2 * stride), r3 = unpack_16<kBits>(bytes + 3 * stride);
  const __m128i low01 = _mm_unpacklo_epi8(r0, r1), high01 = _mm_unpackhi_epi8(r0, r1);
  const __m128i low23 = _mm_unpacklo_epi8(r2, r3), high23 = _mm_unpackhi_epi8(r2, r3);
  auto* to = reinterpret_cast<__m128i*>(out);
  _mm_storeu_si128(to + 0, _mm_unpacklo_epi16(low01, low23));
  _mm_storeu_si128(to + 1, _mm_unpackhi_epi16(low01, low23));
  _mm_storeu_si128(to + 2, _mm_unpacklo_epi16(high01, high23));
  _mm_storeu_si128(to + 3, _mm_unpackhi_epi16(high01, high23));
}

// 16 packed codes of one column to bytes.
template <int kBits>
inline void unpack_column(const uint8_t* bytes, uint8_t* out) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), unpack_16<kBits>(bytes));
}

#else

template <int kBits>
inline void unpack_column(const uint8_t* bytes, uint8_t* out) {
  constexpr int kFields = 8 / kBits;
  for (int i = 0; i < 16; ++i)
    out[i] = static_cast<uint8_t>((bytes[i / kFields] >> (i % kFields * kBits)) & ((1 << kBits) - 1));
}

template <int kBits>
inline void interleave_rows(const uint8_t* bytes, int64_t stride, uint8_t* out) {
  for (int i = 0; i < 4; ++i) {
    uint8_t row[16];
    unpack_column<kBits>(bytes + i * stride, row);
    for (int c = 0; c < 16; ++c) out[c * 4 + i] = row[c];
  }
}

#endif

}  // namespace onnxq::cpu
