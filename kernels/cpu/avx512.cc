// AVX-512 VNNI: preparation of rows, and the choice between decode and prefill.
#include "cpu/avx512.h"

#include "cpu/avx512_tiles.h"

namespace onnxq::cpu {
namespace {

using namespace avx512;

__mmask16 first_lanes(int64_t count) {
  return count >= 16 ? static_cast<__mmask16>(0xffff) : static_cast<__mmask16>((1u << std::max<int64_t>(count, 0)) - 1);
}

// The bits of max|x| over a block whose first `length` elements exist.
uint32_t largest_magnitude(const float* values, int64_t length) {
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  __m512i largest = _mm512_setzero_si512();
  for (int64_t i = 0; i < length; i += 16) {
    const __m512i bits = _mm512_maskz_loadu_epi32(first_lanes(length - i), values + i);
    largest = _mm512_max_epu32(largest, _mm512_and_si512(bits, magnitude));
  }
  return _mm512_reduce_max_epu32(largest);
}

void quantize_row(const PackedWeight& weight, const float* row, int8_t* codes, float* scales, int32_t* corrections) {
  const int32_t factor = weight.has_zero_points ? -1 : -weight.symmetric_zero_point();
  for (int64_t b = 0; b < weight.blocks; ++b) {
    const int64_t first = b * weight.block;
    const int64_t length = std::min<int64_t>(weight.block, weight.k - first);
    const BlockScale scale = block_scale(largest_magnitude(row + first, length));
    const __m512 inverse = _mm512_set1_ps(scale.inverse);
    __m512i sum = _mm512_setzero_si512();
    for (int64_t i = 0; i < weight.block; i += 16) {
      // A block whose scale is NaN gets codes of 0, whatever its values are.
      const __mmask16 lanes = scale.inverse > 0.0f ? first_lanes(length - i) : static_cast<__mmask16>(0);
      const __m512 values = _mm512_maskz_loadu_ps(lanes, row + first + i);
      const __m512i rounded = _mm512_cvtps_epi32(_mm512_mul_ps(values, inverse));
      sum = _mm512_add_epi32(sum, rounded);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(codes + first + i), _mm512_cvtepi32_epi8(rounded));
    }
    scales[b] = scale.scale;
    corrections[b] = factor * _mm512_reduce_add_epi32(sum);
  }
}

void int8_tile(const PackedWeight& weight, const PreparedRows& rows, const Tile& tile) {
  if (tile.rows <= 2 * kDecodeRows) return decode_tile(weight, rows, tile);
  prefill_tile(weight, rows, tile);
}

}  // namespace

const Kernels kAvx512VnniKernels = {quantize_row, int8_tile, kScalarKernels.float_tile};

}  // namespace onnxq::cpu
