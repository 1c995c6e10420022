// The CUDA kernels of every op that the CPU provider has, and of bfloat16 activations besides.
#pragma once

#include "ort/op.h"

namespace onnxq::cuda {

// Built once from ort::all_ops(): same names, same types, CUDAExecutionProvider. Empty in a build without
// nvcc. In an emulated build they say CPUExecutionProvider: there is no CUDA provider without a GPU.
const std::vector<std::unique_ptr<ort::Op>>& cuda_ops();

}  // namespace onnxq::cuda
