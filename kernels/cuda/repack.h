// From the model file's order to the device layout of layout.h, once, when a node is created.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "cuda/layout.h"

namespace onnxq::cuda {

// A quantized weight in whatever order a file has it:
// W[k, n] = (code(k, n) - zero_point(k / block, n)) * scale(k / block, n), codes unsigned;
// with a codebook, W[k, n] = codebook[code(k, n)] * scale(k / block, n).
struct Weight {
  int64_t k = 0;
  int64_t n = 0;
  int block = 0;
  int bits = 0;
  bool has_zero_points = false;  // false: symmetric_zero(bits) everywhere
  std::vector<float> codebook;   // empty: codes are integers

  virtual ~Weight() = default;
  virtual int code(int64_t row, int64_t column) const = 0;
  virtual int zero_point(int64_t block_row, int64_t column) const = 0;
  virtual float scale(int64_t block_row, int64_t column) const = 0;
};

using CodebookTable = std::array<std::array<uint32_t, kCodebookWords>, 3>;

// What goes to the device in one piece: tiles, then scales, then zero points. A codebook goes with each launch.
struct PackedWeight {
  int k = 0;
  int n = 0;
  int bits = 0;
  int block_log2 = 0;
  int zero_stride = 0;  // bytes from one row of zero points to the next; 0: all rows share one
  Element element = Element::kHalf;
  bool codebook = false;
  CodebookTable table{};  // see CodebookArgs
  std::size_t scales_offset = 0;
  std::size_t zeros_offset = 0;
  std::vector<uint8_t> bytes;
};

// Throws Error where a dimension does not fit the kernels' 32-bit sizes.
PackedWeight repack(const Weight& source, Element element);

}  // namespace onnxq::cuda
