#include "cpu/kernels.h"

namespace onnxq::cpu {

const Kernels& kernels_for(Isa isa) {
  switch (isa) {
#if defined(ONNXQ_X86)
    case Isa::kAvx512Vnni: return kAvx512VnniKernels;
#endif
    default: return kScalarKernels;
  }
}

}  // namespace onnxq::cpu
