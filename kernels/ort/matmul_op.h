// Y = A @ W with A [.., K] and a constant weight, repacked when the node is created.
//
// All take the attributes block_size and compute ("int8" if absent).
#pragma once

#include "ort/op.h"

namespace onnxq::ort {

// PackedMatMul, PackedMatMulZeroPoint, PackedMatMulTransposed, PackedMatMulTransposedZeroPoint.
// Inputs: A, B, scales (, zero_points).
std::unique_ptr<Kernel> create_matmul(const Op& op, const Api& api, const OrtKernelInfo* info);

// PackedMatMulBits3, 5, 6 and their ...ZeroPoint, see LAYOUTS.md. Attribute: rows = K.
// Inputs: A, low, high, scales (, zero_points).
std::unique_ptr<Kernel> create_planes(const Op& op, const Api& api, const OrtKernelInfo* info);

// CodebookMatMul2, 3, 4, 8, see LAYOUTS.md. Attribute: rows = K.
// Inputs: A, low (, high), codebook, scales.
std::unique_ptr<Kernel> create_codebook(const Op& op, const Api& api, const OrtKernelInfo* info);

}  // namespace onnxq::ort
