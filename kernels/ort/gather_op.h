// PackedGather and its variants: rows of a packed table [V, K], dequantized as they are looked up.
#pragma once

#include "ort/op.h"

namespace onnxq::ort {

// Inputs: data, indices, scales (, zero_points). Attribute: block_size.
// Output: indices.shape + [K], float32 (PackedGatherFloat16: float16).
std::unique_ptr<Kernel> create_gather(const Op& op, const Api& api, const OrtKernelInfo* info);

}  // namespace onnxq::ort
