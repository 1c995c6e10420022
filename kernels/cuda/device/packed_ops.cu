// All kernels of one activation type and one width of codes: compiled once per pair, see ../cuda.cmake.
//
//   nvcc -std=c++17 -O3 -DONNXQ_MODULE=half_4 -DONNXQ_ELEMENT=kHalf -DONNXQ_CODE=Integers -DONNXQ_BITS=4 ...
//   nvcc ... -DONNXQ_MODULE=half_codebook4 -DONNXQ_ELEMENT=kHalf -DONNXQ_CODE=Codebook -DONNXQ_BITS=4 -DONNXQ_NO_GATHER
//
// A kernel's name is its key: the host finds it in the module by name (../dispatch.h), and so does a profiler.
#include "decode.cuh"
#include "gather.cuh"
#include "tile.cuh"

using namespace onnxq::cuda;

#define ONNXQ_JOIN_(module, name) onnxq_##module##_##name
#define ONNXQ_JOIN(module, name) ONNXQ_JOIN_(module, name)
// ONNXQ_KERNEL(name, argument type, threads of a CTA [, CTAs that a multiprocessor must have room for])
#define ONNXQ_KERNEL(name, Args_, ...)                     \
  extern "C" __global__ void __launch_bounds__(__VA_ARGS__) \
      ONNXQ_JOIN(ONNXQ_MODULE, name)(const __grid_constant__ Args_ args)

namespace {
using Code = ONNXQ_CODE<ONNXQ_BITS>;
using Args = Code::Args;
constexpr Element kElement = Element::ONNXQ_ELEMENT;
constexpr int kMidThreads = mid_shape(kElement).threads();
constexpr int kWideThreads = wide_shape(kElement).threads();
}  // namespace

ONNXQ_KERNEL(decode_p16, Args, Decode::kThreads) { decode<kElement, Code, 16>(args); }
ONNXQ_KERNEL(decode_p32, Args, Decode::kThreads) { decode<kElement, Code, 32>(args); }
ONNXQ_KERNEL(decode_p64, Args, Decode::kThreads) { decode<kElement, Code, 64>(args); }
ONNXQ_KERNEL(decode_p128, Args, Decode::kThreads) { decode<kElement, Code, 128>(args); }
ONNXQ_KERNEL(mid, Args, kMidThreads, 2) { tile_product<kElement, Code, MidShape>(args); }
ONNXQ_KERNEL(wide, Args, kWideThreads) { tile_product<kElement, Code, WideShape>(args); }
#ifndef ONNXQ_NO_GATHER
ONNXQ_KERNEL(gather, GatherArgs, kGatherThreads) { gather<kElement, ONNXQ_BITS>(args); }
#endif
