// The AVX-512 products, one file each.
#pragma once

#include <algorithm>

#include "cpu/avx512.h"

namespace onnxq::cpu::avx512 {

// Rows that one pass over the codes serves in avx512_decode.cc; above twice that, unpacking pays.
inline constexpr int64_t kDecodeRows = 4;

void decode_tile(const PackedWeight& weight, const PreparedRows& rows, const Tile& tile);
void prefill_tile(const PackedWeight& weight, const PreparedRows& rows, const Tile& tile);

}  // namespace onnxq::cpu::avx512
