// From the model file's order to the device layout of layout.h, once, when a node is created.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cpu/weight_source.h"
#include "cuda/layout.h"

namespace onnxq::cuda {

// What goes to the device in one piece: tiles, then scales, then zero points.
struct PackedWeight {
  int k = 0;
  int n = 0;
  int bits = 0;
  int block_log2 = 0;
  int zero_stride = 0;  // bytes from one row of zero points to the next; 0: all rows share one
  Element element = Element::kHalf;
  std::size_t scales_offset = 0;
  std::size_t zeros_offset = 0;
  std::vector<uint8_t> bytes;
};

// Throws Error where a dimension does not fit the kernels' 32-bit sizes.
PackedWeight repack(const cpu::WeightSource& source, Element element);

}  // namespace onnxq::cuda
