#include "cpu/kernels.h"

namespace onnxq::cpu {

const Kernels& kernels_for(Isa isa) {
  switch (isa) {
#if defined(ONNXQ_X86)
    case Isa::kAvx2: return kAvx2Kernels;
    case Isa::kAvxVnni: return kAvxVnniKernels;
    case Isa::kAvx512Vnni: return kAvx512VnniKernels;
    case Isa::kAmx: return kAmxKernels;
#elif defined(ONNXQ_ARM64)
    case Isa::kNeon: return kNeonKernels;
#endif
    default: return kScalarKernels;
  }
}

}  // namespace onnxq::cpu
