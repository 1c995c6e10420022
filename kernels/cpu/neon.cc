// NEON with dot products: the common templates, instantiated and compiled for it.
#include "cpu/vector_neon.h"

#include "cpu/float_tiles.h"
#include "cpu/half_rows.h"
#include "cpu/int8_tiles.h"
#include "cpu/quantize_row.h"

namespace onnxq::cpu {

using Vector = Neon;

const Kernels kNeonKernels = {widen<Vector>, narrow<Vector>,
                              quantize_row<Vector>, int8_tile<Vector>, float_tile<Vector>};

}  // namespace onnxq::cpu
