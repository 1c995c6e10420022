// All kernels of one activation type and one width: compiled once per pair, see ../cuda.cmake.
//
//   nvcc -std=c++17 -O3 -DONNXQ_MODULE=half_4 -DONNXQ_ELEMENT=kHalf -DONNXQ_BITS=4 ...
//
// A kernel's name is its key: the host finds it in the module by name (../dispatch.h), and so does a profiler.
#include "decode.cuh"
#include "gather.cuh"
#include "tile.cuh"

using namespace onnxq::cuda;

#define ONNXQ_JOIN_(module, name) onnxq_##module##_##name
#define ONNXQ_JOIN(module, name) ONNXQ_JOIN_(module, name)
// ONNXQ_KERNEL(name, argument type, threads of a CTA [, CTAs that a multiprocessor must have room for])
#define ONNXQ_KERNEL(name, Args, ...)                      \
  extern "C" __global__ void __launch_bounds__(__VA_ARGS__) \
      ONNXQ_JOIN(ONNXQ_MODULE, name)(const __grid_constant__ Args args)

namespace {
constexpr Element kElement = Element::ONNXQ_ELEMENT;
constexpr int kMidThreads = mid_shape(kElement).threads();
constexpr int kWideThreads = wide_shape(kElement).threads();
}  // namespace

ONNXQ_KERNEL(decode_p16, MatMulArgs, Decode::kThreads) { decode<kElement, ONNXQ_BITS, 16>(args); }
ONNXQ_KERNEL(decode_p32, MatMulArgs, Decode::kThreads) { decode<kElement, ONNXQ_BITS, 32>(args); }
ONNXQ_KERNEL(decode_p64, MatMulArgs, Decode::kThreads) { decode<kElement, ONNXQ_BITS, 64>(args); }
ONNXQ_KERNEL(decode_p128, MatMulArgs, Decode::kThreads) { decode<kElement, ONNXQ_BITS, 128>(args); }
ONNXQ_KERNEL(mid, MatMulArgs, kMidThreads, 2) { tile_product<kElement, ONNXQ_BITS, MidShape>(args); }
ONNXQ_KERNEL(wide, MatMulArgs, kWideThreads) { tile_product<kElement, ONNXQ_BITS, WideShape>(args); }
ONNXQ_KERNEL(gather, GatherArgs, kGatherThreads) { gather<kElement, ONNXQ_BITS>(args); }
