// PackedMatMul, PackedMatMulZeroPoint, PackedMatMulTransposed, PackedMatMulTransposedZeroPoint:
// Y = A @ W with A [.., K] and a constant weight, repacked when the node is created.
#pragma once

#include "ort/op.h"

namespace onnxq::ort {

// Inputs: A, B, scales (, zero_points). Attributes: block_size, compute ("int8" if absent).
std::unique_ptr<Kernel> create_matmul(const Op& op, const Api& api, const OrtKernelInfo* info);

}  // namespace onnxq::ort
