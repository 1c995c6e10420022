// AVX-512 VNNI: the common templates, instantiated and compiled for it.
#include "cpu/vector_avx512.h"

#include "cpu/float_tiles.h"
#include "cpu/half_rows.h"
#include "cpu/int8_tiles.h"
#include "cpu/quantize_row.h"

namespace onnxq::cpu {

using Vector = Avx512;

const Kernels kAvx512VnniKernels = {widen<Vector>, narrow<Vector>,
                                    quantize_row<Vector>, int8_tile<Vector>, float_tile<Vector>};

}  // namespace onnxq::cpu
