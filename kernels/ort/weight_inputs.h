// Reads the weight of a node and checks it: attributes, types, shapes, sizes.
#pragma once

#include "cpu/weight_source.h"
#include "ort/op.h"

namespace onnxq::ort {

// The tensors of a weight, as a node names them. `zero_points` is null where the op has none.
struct WeightTensors {
  const Tensor* codes = nullptr;
  const Tensor* scales = nullptr;
  const Tensor* zero_points = nullptr;
};

// Throws Error unless `block_size` is a power of two of 16 .. 256.
int read_block_size(const Api& api, const OrtKernelInfo* info);

// Throws Error if ranks, shapes or sizes contradict each other.
cpu::WeightSource check_weight(const WeightTensors& tensors, int block_size, bool transposed);

// A constant input, or an Error that names it.
Tensor require_constant(const Api& api, const OrtKernelInfo* info, std::size_t index, const char* what);

}  // namespace onnxq::ort
