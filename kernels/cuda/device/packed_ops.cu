// All kernels of one activation type and one width of codes: compiled once per pair, see ../cuda.cmake.
//
//   nvcc -std=c++17 -O3 -DONNXQ_MODULE=half_4 -DONNXQ_ELEMENT=kHalf -DONNXQ_BITS=4 ...
//   nvcc ... -DONNXQ_MODULE=half_codebook4 -DONNXQ_ELEMENT=kHalf -DONNXQ_BITS=4 -DONNXQ_CODEBOOK
//
// A kernel's name is its key: the host finds it in the module by name (../dispatch.h), and so does a profiler.
#include <type_traits>

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
#ifdef ONNXQ_CODEBOOK
using Code = Codebook<ONNXQ_BITS>;
#else
using Code = Integers<ONNXQ_BITS>;
#endif
using Args = Code::Args;
constexpr Element kElement = Element::ONNXQ_ELEMENT;
constexpr int kMidThreads = mid_shape(kElement).threads();
constexpr int kWideThreads = wide_shape(kElement).threads();
}  // namespace

#define ONNXQ_DECODE(name, code, deep)                                                        \
  ONNXQ_KERNEL(name##_p16, Args, Decode::kThreads) { decode<kElement, code, 16>(args); }       \
  ONNXQ_KERNEL(name##_p32, Args, Decode::kThreads) { decode<kElement, code, 32>(args); }       \
  ONNXQ_KERNEL(name##_p64, Args, Decode::kThreads) { decode<kElement, code, 64>(args); }       \
  ONNXQ_KERNEL(name##_p128, Args, Decode::kThreads) { decode<kElement, deep, 128>(args); }

#ifdef ONNXQ_CODEBOOK
ONNXQ_DECODE(decode, Code, Code)
#else
using Symmetric = SymmetricIntegers<ONNXQ_BITS>;
// From the deep float kernel without zero points ptxas 13.0 spills; there the one shared row is read.
using SymmetricDeep = std::conditional_t<kElement == Element::kFloat, Code, Symmetric>;
ONNXQ_DECODE(decode, Symmetric, SymmetricDeep)
ONNXQ_DECODE(decode_zeros, Code, Code)
ONNXQ_KERNEL(gather, GatherArgs, kGatherThreads) { gather<kElement, ONNXQ_BITS>(args); }
#endif
ONNXQ_KERNEL(mid, Args, kMidThreads, 2) { tile_product<kElement, Code, MidShape>(args); }
ONNXQ_KERNEL(wide, Args, kWideThreads) { tile_product<kElement, Code, WideShape>(args); }
