#include "cpu/kernels.h"

namespace onnxq::cpu {
namespace {

#if defined(ONNXQ_X86)
const Kernels& amx_kernels() {
  static const Kernels kernels = [] {
    Kernels with_tiles = kAvx512VnniKernels;
    with_tiles.int8_tile = amx_int8_tile;
    return with_tiles;
  }();
  return kernels;
}
#endif

}  // namespace

const Kernels& kernels_for(Isa isa) {
  switch (isa) {
#if defined(ONNXQ_X86)
    case Isa::kAvx2: return kAvx2Kernels;
    case Isa::kAvxVnni: return kAvxVnniKernels;
    case Isa::kAvx512Vnni: return kAvx512VnniKernels;
    case Isa::kAmx: return amx_kernels();
#elif defined(ONNXQ_ARM64)
    case Isa::kNeon: return kNeonKernels;
#endif
    default: return kScalarKernels;
  }
}

}  // namespace onnxq::cpu
