// What an instruction set provides: two products and the preparation of their rows of A.
//
// A product goes in two steps. First every row of A is *prepared*: padded to whole blocks and, for
// int8, quantized. Then *tiles* of the result are computed, each from some rows and some panels; tiles
// are independent, each element of Y is made by one tile in one fixed order of operations, and so the
// result does not depend on the number of threads.
#pragma once

#include <bit>
#include <cstdint>
#include <limits>

#include "cpu/isa.h"
#include "cpu/panel.h"

namespace onnxq::cpu {

enum class Compute { kInt8, kBfloat16, kFloat };

// Rows of A, prepared for a weight. Only the arrays that the mode uses are set.
struct PreparedRows {
  const int8_t* codes = nullptr;      // int8: [rows][padded_k], symmetric, -127 .. 127
  const float* scales = nullptr;      // int8: [rows][blocks]
  // int8: [rows][blocks]; minus the sum of the block's codes, and for a symmetric weight that times its
  // zero point: what turns a product by unsigned codes into one by signed weights.
  const int32_t* corrections = nullptr;
  const float* values = nullptr;      // float: [rows][padded_k]
};

// A piece of the result: rows x panels. `out` is float32, 16 columns for every panel, `stride` floats
// from one row to the next; all of it is written.
struct Tile {
  int64_t row = 0;
  int64_t rows = 0;
  int64_t panel = 0;
  int64_t panels = 0;
  float* out = nullptr;
  int64_t stride = 0;
};

// How a block of activations is quantized, from the bits of its largest magnitude.
struct BlockScale {
  float scale;    // what a code is worth
  float inverse;  // codes = round_half_even(a * inverse); 0 where every code is 0
};

inline BlockScale block_scale(uint32_t magnitude_bits) {
  constexpr uint32_t kInfinity = 0x7f800000u;
  constexpr float kSmallest = 0x1p-120f;  // below it, 127 / largest overflows: such a block counts as zero
  const float largest = std::bit_cast<float>(magnitude_bits);
  // Infinity or NaN anywhere in the block: the scale carries it into the result.
  if (magnitude_bits >= kInfinity) return {std::numeric_limits<float>::quiet_NaN(), 0.0f};
  if (largest < kSmallest) return {0.0f, 0.0f};
  return {largest / 127.0f, 127.0f / largest};
}

struct Kernels {
  // float16 to float32, exactly, and back, ties to even.
  void (*widen)(const uint16_t* half, int64_t count, float* out);
  void (*narrow)(const float* values, int64_t count, uint16_t* out);
  // Quantizes one row: per block, scale = max|a| / 127 and codes = round_half_even(a / scale).
  // `row` holds weight.k floats; codes, scales, corrections are the row's part of PreparedRows.
  void (*quantize_row)(const PackedWeight& weight, const float* row, int8_t* codes, float* scales,
                       int32_t* corrections);
  void (*int8_tile)(const PackedWeight& weight, const PreparedRows& rows, const Tile& tile);
  void (*float_tile)(const PackedWeight& weight, const PreparedRows& rows, const Tile& tile);
};

const Kernels& kernels_for(Isa isa);

// One per source file; each is compiled with the flags of its instruction set.
extern const Kernels kScalarKernels;
extern const Kernels kAvx2Kernels;
extern const Kernels kAvxVnniKernels;
extern const Kernels kAvx512VnniKernels;
extern const Kernels kNeonKernels;

// AMX is AVX-512 VNNI with another int8 product.
void amx_int8_tile(const PackedWeight& weight, const PreparedRows& rows, const Tile& tile);

}  // namespace onnxq::cpu
