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

// The tensors of a weight in planes of bytes, see LAYOUTS.md; null where the op has no such input.
struct PlaneTensors {
  int bits = 0;
  const Tensor* low = nullptr;
  const Tensor* high = nullptr;
  const Tensor* scales = nullptr;
  const Tensor* zero_points = nullptr;
};

// The attribute `rows`: K, which planes cannot tell.
int64_t read_rows(const Api& api, const OrtKernelInfo* info);

// Throws Error unless `block_size` is a power of two of 16 .. 256.
int read_block_size(const Api& api, const OrtKernelInfo* info);

// Throws Error if ranks, shapes or sizes contradict each other.
cpu::WeightSource check_weight(const WeightTensors& tensors, int block_size, bool transposed);

cpu::WeightSource check_planes(const PlaneTensors& tensors, int64_t rows, int block_size);

// Also throws if an index has no entry in the codebook.
cpu::CodebookSource check_codebook(const PlaneTensors& tensors, const Tensor& codebook, int64_t rows, int block_size);

// A constant input, or an Error that names it.
Tensor require_constant(const Api& api, const OrtKernelInfo* info, std::size_t index, const char* what);

}  // namespace onnxq::ort
