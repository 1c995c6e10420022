// Dynamic quantization of a row of A, for every instruction set: plain loops over 16 numbers, which the
// compiler turns into the vectors of the file that includes this.
#pragma once

#include "cpu/kernels.h"

namespace onnxq::cpu {

// Rounds to the nearest integer, ties to even, for |x| < 2^22: beside 1.5 * 2^23 a float has no fraction.
inline constexpr float kRounder = 0x1.8p23f;

// V only keeps the symbols of the instruction sets apart.
template <class V>
void quantize_row(const PackedWeight& weight, const float* row, int8_t* codes, float* scales, int32_t* corrections) {
  // Local: a store through `codes`, being of bytes, may change any object that is not, and a loop whose bound
  // may change is not vectorized.
  const int block = weight.block;
  const int32_t factor = weight.has_zero_points ? -1 : -weight.symmetric_zero_point();
  for (int64_t b = 0; b < weight.blocks; ++b) {
    const int64_t length = std::min<int64_t>(block, weight.k - b * block);
    alignas(kCacheLine) float values[kMaxBlock];
    for (int64_t i = 0; i < length; ++i) values[i] = row[b * block + i];
    for (int64_t i = length; i < block; ++i) values[i] = 0.0f;

    // As integers, magnitudes order like the numbers and NaN stands above everything.
    uint32_t largest = 0;
    for (int i = 0; i < block; ++i)
      largest = std::max(largest, std::bit_cast<uint32_t>(values[i]) & 0x7fffffffu);
    const BlockScale scale = block_scale(largest);
    int8_t* out = codes + b * block;
    int32_t sum = 0;
    if (scale.inverse > 0.0f) {
      for (int i = 0; i < block; ++i) {
        const float rounded = values[i] * scale.inverse + kRounder;
        const int32_t code = std::bit_cast<int32_t>(rounded) - std::bit_cast<int32_t>(kRounder);
        out[i] = static_cast<int8_t>(code);
        sum += code;
      }
    } else {
      std::fill_n(out, block, static_cast<int8_t>(0));
    }
    scales[b] = scale.scale;
    corrections[b] = factor * sum;
  }
}

}  // namespace onnxq::cpu
