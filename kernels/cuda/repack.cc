#include "cuda/repack.h"

#include <bit>
#include <cstring>
#include <limits>

#include "cpu/half.h"
#include "error.h"

namespace onnxq::cuda {
namespace {

// Where one lane's words of a tile come from: [step][register][half] -> (column, depth) of the tile.
struct Spot {
  int column;
  int depth;
};

Spot spot_of(bool narrow, int lane, int step, int reg, int half) {
  return {lane / 4 + reg % 2 * 8, depth_in_tile(narrow, step, lane % 4, reg / 2, half)};
}

// ORs the bits of `code` that belong to one plane into the tile.
void put(uint8_t* plane, int width, int lane, int step, int reg, int half, unsigned code) {
  const Field field = field_of(width, step, reg);
  uint8_t* at = plane + plane_word_offset(width, lane, field.word);
  uint32_t word;
  std::memcpy(&word, at, sizeof word);
  word |= (code & ((1u << width) - 1)) << (field.bit + 16 * half);
  std::memcpy(at, &word, sizeof word);
}

void pack_tile(const Weight& source, bool narrow, int64_t first_column, int64_t first_depth, uint8_t* tile) {
  const int base = base_width(source.bits), extra = extra_width(source.bits);
  for (int lane = 0; lane < kLanes; ++lane)
    for (int step = 0; step < kSteps; ++step)
      for (int reg = 0; reg < kRegisters; ++reg)
        for (int half = 0; half < 2; ++half) {
          const Spot spot = spot_of(narrow, lane, step, reg, half);
          const int64_t column = first_column + spot.column, depth = first_depth + spot.depth;
          if (column >= source.n || depth >= source.k) continue;
          const auto code = static_cast<unsigned>(source.code(depth, column));
          put(tile, base, lane, step, reg, half, code);
          if (extra > 0) put(tile + tile_bytes(base), extra, lane, step, reg, half, code >> base);
        }
}

uint16_t to_bfloat(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// The scale as CastLike(scales, A) makes it: rounded to the type of the activations.
void put_scale(uint8_t* scales, int64_t index, Element element, float value) {
  if (element == Element::kFloat) {
    std::memcpy(scales + 4 * index, &value, 4);
    return;
  }
  const uint16_t bits = element == Element::kHalf ? cpu::float_to_half(value) : to_bfloat(value);
  std::memcpy(scales + 2 * index, &bits, 2);
}

// The part of `value` that bfloat16 holds, rounded to nearest: after three of them nothing of a float is left. Part j is
// at most 2^-8j of the value, and part i of a token, which is cut, at most 2^(1-8i): so what the kernels leave out,
// i + j > 2, is below 2^-22 of the product.
uint16_t take_bfloat(float& value) {
  const uint16_t bits = to_bfloat(value);
  value -= std::bit_cast<float>(uint32_t{bits} << 16);
  return bits;
}

void put_entry(CodebookTable::value_type& words, int entry, uint16_t bits) {
  words[static_cast<std::size_t>(entry / 4)] |= (bits & 0xffu) << (entry % 4 * 8);
  words[static_cast<std::size_t>(4 + entry / 4)] |= (bits >> 8u) << (entry % 4 * 8);
}

// Values in the type of the activations, as CastLike(codebook, A) makes them.
CodebookTable codebook_table(const std::vector<float>& values, Element element) {
  CodebookTable table{};
  for (int entry = 0; entry < static_cast<int>(values.size()); ++entry) {
    float left = values[static_cast<std::size_t>(entry)];
    for (int part = 0; part < codebook_parts(element); ++part) {
      const uint16_t bits = element == Element::kHalf ? cpu::float_to_half(left) : take_bfloat(left);
      put_entry(table[static_cast<std::size_t>(part)], entry, bits);
    }
  }
  return table;
}

constexpr std::size_t aligned(std::size_t bytes) { return (bytes + 255) / 256 * 256; }

}  // namespace

PackedWeight repack(const Weight& source, Element element) {
  constexpr int64_t kLargest = std::numeric_limits<int>::max() - 2 * kTileDepth;
  if (source.k > kLargest || source.n > kLargest)
    fail("K=", source.k, ", N=", source.n, " is beyond the CUDA kernels' 32-bit sizes");
  if (source.bits != 8 && (source.bits < 2 || source.bits > 6)) fail(source.bits, "-bit codes have no CUDA kernel");
  PackedWeight packed;
  packed.k = static_cast<int>(source.k);
  packed.n = static_cast<int>(source.n);
  packed.bits = source.bits;
  packed.block_log2 = std::countr_zero(static_cast<unsigned>(source.block));
  packed.element = element;
  packed.codebook = !source.codebook.empty();
  if (packed.codebook) {
    const std::size_t most = std::size_t{1} << source.bits;
    if (most > kCodebookEntries || source.codebook.size() > most)
      fail("a codebook of ", source.codebook.size(), " entries for ", source.bits, "-bit indices has no CUDA kernel");
    packed.table = codebook_table(source.codebook, element);
  }

  const int64_t column_tiles = ceil_div(packed.n, kTileColumns), depth_tiles = ceil_div(packed.k, kTileDepth);
  const int64_t rows = scale_rows(packed.k, source.block);
  const int64_t row_entries = kTileColumns * blocks_in_row(source.block);
  const bool zero_points = source.has_zero_points;
  packed.zero_stride = zero_points ? static_cast<int>(row_entries) : 0;
  packed.scales_offset = aligned(static_cast<std::size_t>(column_tiles * depth_tiles * tile_bytes(source.bits)));
  packed.zeros_offset = packed.scales_offset +
                        aligned(static_cast<std::size_t>(column_tiles * rows * row_entries * element_bytes(element)));
  const std::size_t zero_bytes = static_cast<std::size_t>((zero_points ? column_tiles * rows : 1) * row_entries);
  packed.bytes.assign(packed.zeros_offset + aligned(zero_bytes), 0);

  uint8_t* tile = packed.bytes.data();
  for (int64_t c = 0; c < column_tiles; ++c)
    for (int64_t d = 0; d < depth_tiles; ++d, tile += tile_bytes(source.bits))
      pack_tile(source, narrow_order(element, source.block), c * kTileColumns, d * kTileDepth, tile);

  uint8_t* zeros = packed.bytes.data() + packed.zeros_offset;
  if (!zero_points) std::memset(zeros, symmetric_zero(source.bits), zero_bytes);
  for (int column = 0; column < packed.n; ++column)
    for (int block = 0; block < ceil_div(packed.k, source.block); ++block) {
      const int64_t index = scale_index(rows, source.block, column, block);
      put_scale(packed.bytes.data() + packed.scales_offset, index, element, source.scale(block, column));
      if (zero_points) zeros[index] = static_cast<uint8_t>(source.zero_point(block, column));
    }
  return packed;
}

}  // namespace onnxq::cuda
