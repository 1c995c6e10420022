// A quantized weight as it stands in the model file, and how to read one code of it.
//
// W[k, n] = (code(k, n) - zero_point(k / block, n)) * scale(k / block, n)
//
// Codes are read as unsigned numbers. A signed type is the same bits with the top one flipped:
// q = code - 2^(bits-1), so its zero point is 2^(bits-1) everywhere.
#pragma once

#include <cstdint>

#include "cpu/half.h"

namespace onnxq::cpu {

struct WeightSource {
  int64_t k = 0;       // depth: elements of a row of A
  int64_t n = 0;       // columns of the product
  int block = 0;       // elements along K that share a scale
  int bits = 0;        // 2, 4 or 8
  bool is_signed = false;
  bool transposed = false;  // stored [N, K] instead of [K, N]; scales and zero points likewise
  bool half_scales = false;

  // ONNX's own order: row-major over the whole tensor, low bits first within a byte, rows not padded.
  const uint8_t* codes = nullptr;
  const void* scales = nullptr;          // float16 or float32 [ceil(K/block), N]
  const uint8_t* zero_points = nullptr;  // packed like the codes, in the shape of scales; null if signed

  int64_t blocks() const { return (k + block - 1) / block; }

  int code(int64_t row, int64_t column) const {
    const int64_t index = transposed ? column * k + row : row * n + column;
    return unpack(codes, index) ^ (is_signed ? 1 << (bits - 1) : 0);
  }
  int zero_point(int64_t block_row, int64_t column) const {
    return zero_points == nullptr ? 1 << (bits - 1) : unpack(zero_points, scale_index(block_row, column));
  }
  float scale(int64_t block_row, int64_t column) const {
    const int64_t index = scale_index(block_row, column);
    return half_scales ? half_to_float(static_cast<const uint16_t*>(scales)[index])
                       : static_cast<const float*>(scales)[index];
  }

 private:
  int64_t scale_index(int64_t block_row, int64_t column) const {
    return transposed ? column * blocks() + block_row : block_row * n + column;
  }
  int unpack(const uint8_t* packed, int64_t index) const {
    const int64_t bit = index * bits;
    return (packed[bit / 8] >> (bit % 8)) & ((1 << bits) - 1);
  }
};

}  // namespace onnxq::cpu
