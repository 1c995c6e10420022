#include "cpu/kernels.h"

namespace onnxq::cpu {

const Kernels& kernels_for(Isa isa) {
  switch (isa) {
#if defined(ONNXQ_X86)
    // AVX paths land here as they are built.
#endif
    default: return kScalarKernels;
  }
}

}  // namespace onnxq::cpu
