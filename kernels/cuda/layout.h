// The device layout of packed weights, their scales and zero points: one for every CUDA kernel.
//
// Host repacking (repack.cpp), the kernels (device/) and the tests all take the numbers from here.
//
// A weight matrix of K rows and N columns is cut into tiles of 16 columns x 64 rows ("depth").
// A tile is what one warp needs for four m16n8k16 products with the weights as the m16 operand:
//
//   lane = 4 * group + quad       group 0..7, quad 0..3: the PTX fragment coordinates
//   register 0: column group,     depths 2*quad, 2*quad + 1
//   register 1: column group + 8, depths 2*quad, 2*quad + 1
//   register 2: column group,     depths 2*quad + 8, 2*quad + 9
//   register 3: column group + 8, depths 2*quad + 8, 2*quad + 9
//
// so each lane owns 32 codes of a tile: 4 steps x 4 registers x 2 halves.
//
// Which weight row a fragment depth stands for is ours to choose, as long as the activations are
// read in the same order. `depth_in_tile` chooses it so that a lane's activations are contiguous:
//   wide    8 neighbours: 16 bytes of a 16-bit type, two reads a tile
//   narrow  4 neighbours: 16 bytes of float; and blocks of 16, whose steps must stay inside one block
//
// Codes are unsigned (signed ones are stored with their sign bit flipped) and lie in planes of 8, 4,
// 2 or 1 bits: 3 = 2 + 1, 5 = 4 + 1, 6 = 4 + 2. In a plane of width w a lane owns w 32-bit words.
// A word's low half holds the codes of half 0, its high half those of half 1, at equal positions, so
// that one mask lifts a pair of codes into the two halves of a register (`field_of`).
//
//   weights: [ceil(N/16)][ceil(K/64)] tiles of bits * 128 bytes:
//            base plane [ceil(w/4)][lane 32][min(w, 4) words], then the extra plane likewise
//   scales:  [ceil(N/16)][scale rows][group 8][blocks in a tile]{column group, column group + 8}
//            in the element type of the activations
//   zeros:   the same order, uint8; without zero points one row of symmetric_zero(bits), which every
//            scale row shares: the tile kernels read it with a row stride of 0 instead of a branch, the
//            decode kernels have a variant that reads none
//
// A scale row is a tile where a block is 64 or smaller, a block where it is larger. Padding: codes
// and scales of columns >= N and of rows >= K are 0; activations beyond K are read as 0.
#pragma once

#include <cstdint>

// Read by g++ and by nvcc, for the host and for the device.
#ifdef __CUDACC__
#define ONNXQ_ANYWHERE __host__ __device__
#else
#define ONNXQ_ANYWHERE
#endif

namespace onnxq::cuda {

// The type of activations, and of scales on the device.
enum class Element { kHalf, kBFloat16, kFloat };
inline constexpr int kElements = 3;
ONNXQ_ANYWHERE constexpr int element_bytes(Element e) { return e == Element::kFloat ? 4 : 2; }

inline constexpr int kLanes = 32;
inline constexpr int kTileColumns = 16;
inline constexpr int kTileDepth = 64;
inline constexpr int kStepDepth = 16;  // depth of one m16n8k16
inline constexpr int kSteps = kTileDepth / kStepDepth;
inline constexpr int kGroups = 8;  // lanes / 4
inline constexpr int kRegisters = 4;
inline constexpr int kNarrowBlock = 16;  // has the narrow order whatever the element

ONNXQ_ANYWHERE constexpr bool narrow_order(Element e, int block_size) {
  return e == Element::kFloat || block_size == kNarrowBlock;
}

ONNXQ_ANYWHERE constexpr int ceil_div(int value, int by) { return (value + by - 1) / by; }

ONNXQ_ANYWHERE constexpr int tile_bytes(int bits) { return bits * kTileColumns * kTileDepth / 8; }

// Widths of the two planes of a code; the base plane holds its low bits.
ONNXQ_ANYWHERE constexpr int base_width(int bits) { return bits == 3 ? 2 : bits == 5 || bits == 6 ? 4 : bits; }
ONNXQ_ANYWHERE constexpr int extra_width(int bits) { return bits - base_width(bits); }

struct Field {
  int word;  // among the lane's words of the plane
  int bit;   // of half 0; half 1 is 16 higher
};

// Where a plane of `width` bits keeps the code of (step, register).
ONNXQ_ANYWHERE constexpr Field field_of(int width, int step, int reg) {
  const int per_word = 16 / width;
  const int index = step * kRegisters + reg;
  return {index / per_word, index % per_word * width};
}

// Byte offset, inside a plane, of a lane's word: whole 16-byte pieces of 32 lanes, one after another,
// so that a warp's load is contiguous whatever the width.
ONNXQ_ANYWHERE constexpr int plane_word_offset(int width, int lane, int word) {
  const int words = width < 4 ? width : 4;
  return ((word / words * kLanes + lane) * words + word % words) * 4;
}

// The weight row, inside its tile, of fragment (step, quad, register pair `upper`, half).
ONNXQ_ANYWHERE constexpr int depth_in_tile(bool narrow, int step, int quad, int upper, int half) {
  return narrow ? step * 16 + quad * 4 + upper * 2 + half
                : step / 2 * 32 + quad * 8 + step % 2 * 4 + upper * 2 + half;
}

// Blocks with a scale of their own in one scale row.
ONNXQ_ANYWHERE constexpr int blocks_in_row(int block_size) {
  return block_size < kTileDepth ? kTileDepth / block_size : 1;
}

ONNXQ_ANYWHERE constexpr int scale_rows(int k, int block_size) {
  return ceil_div(k, block_size < kTileDepth ? kTileDepth : block_size);
}

// Index of the scale (or zero point) of a column and a block, in entries.
ONNXQ_ANYWHERE constexpr int64_t scale_index(int64_t rows, int block_size, int column, int block) {
  const int in_row = blocks_in_row(block_size);
  const int64_t row = (column / kTileColumns) * rows + block / in_row;
  const int within = column % kTileColumns;
  return ((row * kGroups + within % kGroups) * in_row + block % in_row) * 2 + within / kGroups;
}

// The code that stands for 0 where there is no zero point.
ONNXQ_ANYWHERE constexpr int symmetric_zero(int bits) { return 1 << (bits - 1); }

static_assert(tile_bytes(4) == 512 && tile_bytes(2) == 256 && tile_bytes(8) == 1024);
static_assert(base_width(3) + extra_width(3) == 3 && base_width(6) == 4 && extra_width(6) == 2);
static_assert(field_of(4, 3, 3).word == 3 && field_of(4, 3, 3).bit == 12, "a word is one step of 4 bits");
static_assert(field_of(2, 3, 3).word == 1 && field_of(2, 3, 3).bit == 14, "a word is two steps of 2 bits");
static_assert(field_of(8, 3, 3).word == 7 && field_of(8, 3, 3).bit == 8, "two words are one step of 8 bits");
static_assert(plane_word_offset(8, 31, 7) == tile_bytes(8) - 4, "the last word ends the tile");
static_assert(plane_word_offset(2, 31, 1) == tile_bytes(2) - 4);
static_assert(depth_in_tile(false, 3, 3, 1, 1) == 63 && depth_in_tile(true, 3, 3, 1, 1) == 63);
static_assert(depth_in_tile(false, 1, 3, 1, 1) < 32, "steps 0 and 1 stay inside a block of 32");
static_assert(depth_in_tile(true, 0, 3, 1, 1) < 16, "a narrow step stays inside a block of 16");

// What every matmul kernel is launched with; passed by value, so the layout is part of the ABI
// between the host code and the fatbins.
struct MatMulArgs {
  const void* activations;   // [m, k] row-major
  const void* weights;       // tiles, see above
  const void* scales;        // see above
  const uint8_t* zeros;      // see above
  void* output;              // [m, n] row-major
  int32_t m;
  int32_t n;
  int32_t k;
  int32_t block_log2;        // log2(block_size)
  int32_t zero_stride;       // bytes from one row of `zeros` to the next, 0 without zero points
  int32_t aligned_rows;      // rows of `activations` start on 16 bytes
  int32_t aligned_output;    // rows of `output` start on 16 bytes
};
static_assert(sizeof(MatMulArgs) == 72);

// A scalar codebook of up to 16 values as byte permutes look it up: four values to a word, low bytes of values
// 0 .. 15 in words 0 .. 3, high bytes in words 4 .. 7. float values are the sum of three bfloat16 parts, the two
// 16-bit types have one.
inline constexpr int kCodebookEntries = 16;
inline constexpr int kCodebookWords = 8;
ONNXQ_ANYWHERE constexpr int codebook_parts(Element e) { return e == Element::kFloat ? 3 : 1; }

// The same launch for CodebookMatMul. The table travels with the arguments: constant memory on the device, nothing
// to allocate, and no wait for it before the first weight.
struct CodebookArgs : MatMulArgs {
  uint32_t table[3][kCodebookWords];
};
static_assert(sizeof(CodebookArgs) == 72 + 3 * kCodebookWords * 4);

// PackedGather: row `indices[i]` of the [vocabulary, k] table, whose rows are the columns above.
struct GatherArgs {
  const void* indices;       // [rows] int32 or int64
  const void* weights;
  const void* scales;
  const uint8_t* zeros;
  void* output;              // [rows, k]
  int32_t rows;
  int32_t vocabulary;
  int32_t k;
  int32_t block_log2;
  int32_t zero_stride;
  int32_t wide_indices;      // 1: int64, 0: int32
  int32_t aligned_output;    // rows of `output` start on 16 bytes
};
static_assert(sizeof(GatherArgs) == 72);

}  // namespace onnxq::cuda
