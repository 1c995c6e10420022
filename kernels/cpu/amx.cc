// AMX: int8 products of 16 rows or more on 8 KB of tile registers; everything else as AVX-512 VNNI.
//
// A line of unpacked codes is a row of a B tile as it stands: [4 k][16 columns][4] is what the instruction
// wants. One A tile (16 rows x up to 64 k) meets the 4 panels of a strip, so 5 tile loads feed 4 products
// of 16 x 16 x 64. Products are exact integers; scaling them, block by block, is AVX-512 work that costs
// more than the product itself at small blocks.
#include "cpu/int8_tiles.h"
#include "cpu/vector_avx512.h"

namespace onnxq::cpu {
namespace {

// Symbols of their own for the templates, see panel_reader.h.
struct AmxVector : Avx512 {};

constexpr int kTileRows = 16;
constexpr int kTileDepth = 64;  // k of one product
constexpr int kPanels = AmxVector::kStripPanels;
static_assert(kPanels == 4, "tiles 0-3 are sums, 4 is A, 5 is B");

// What ldtilecfg reads (Intel SDM, "TILECFG").
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};
static_assert(sizeof(TileConfig) == 64);

void configure_tiles(int depth) {
  TileConfig config;
  for (int sums = 0; sums < kPanels; ++sums) {
    config.row_bytes[sums] = kPanelColumns * sizeof(int32_t);
    config.rows[sums] = kTileRows;
  }
  config.row_bytes[4] = static_cast<uint16_t>(depth);  // A: 16 rows x depth
  config.rows[4] = kTileRows;
  config.row_bytes[5] = kLineBytes;  // B: depth / 4 lines
  config.rows[5] = static_cast<uint8_t>(depth / kGroup);
  _tile_loadconfig(&config);
}

using Dots = int32_t[kPanels][kTileRows][kPanelColumns];

// dots[panel][row][column] of one block: 16 rows of A (a, a_stride bytes apart) x a strip.
void block_dots(const Strip<AmxVector>& strip, int64_t offset, const int8_t* a, int64_t a_stride, Dots& dots) {
  const int depth = std::min(strip.weight.block, kTileDepth);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int k = 0; k < strip.weight.block; k += depth) {
    const int64_t at = offset + k * kPanelColumns;
    _tile_loadd(4, a + k, a_stride);
    _tile_loadd(5, strip.codes[0] + at, kLineBytes);
    _tile_dpbsud(0, 4, 5);
    _tile_loadd(5, strip.codes[1] + at, kLineBytes);
    _tile_dpbsud(1, 4, 5);
    _tile_loadd(5, strip.codes[2] + at, kLineBytes);
    _tile_dpbsud(2, 4, 5);
    _tile_loadd(5, strip.codes[3] + at, kLineBytes);
    _tile_dpbsud(3, 4, 5);
  }
  _tile_stored(0, dots[0], kLineBytes);
  _tile_stored(1, dots[1], kLineBytes);
  _tile_stored(2, dots[2], kLineBytes);
  _tile_stored(3, dots[3], kLineBytes);
}

// out += dots of a block, scaled. a_scales and corrections: of row 0 at that block.
template <bool kZeroPoints>
void add_scaled(const PackedWeight& weight, const Dots& dots, int64_t panel, int64_t block, const float* a_scales,
                const int32_t* corrections, float* out, int64_t stride) {
  for (int p = 0; p < kPanels; ++p) {
    const BlockParameters<AmxVector> parameters(weight, panel + p);
    const __m512 scales = parameters.scales(block, 0);
    for (int r = 0; r < kTileRows; ++r) {
      const __m512i start = parameters.template start<kZeroPoints>(block, 0, corrections[r * weight.blocks]);
      const __m512i dot = _mm512_add_epi32(_mm512_load_si512(dots[p][r]), start);
      float* y = out + r * stride + p * kPanelColumns;
      _mm512_storeu_ps(y, accumulate<AmxVector>(dot, scales, a_scales[r * weight.blocks], _mm512_loadu_ps(y)));
    }
  }
}

// 16 rows from `row` on, times a strip of 4 panels, added to out.
template <bool kZeroPoints>
void tile_rows_times_strip(const Strip<AmxVector>& strip, const PreparedRows& rows, int64_t row, float* out,
                           int64_t stride) {
  const PackedWeight& weight = strip.weight;
  for (int64_t b = 0; b < strip.blocks; ++b) {
    const int64_t block = strip.block + b;
    const int8_t* a = rows.codes + row * weight.padded_k() + block * weight.block;
    alignas(kCacheLine) Dots dots;
    block_dots(strip, b * weight.block * kPanelColumns, a, weight.padded_k(), dots);
    const int64_t first = row * weight.blocks + block;
    add_scaled<kZeroPoints>(weight, dots, strip.panel, block, rows.scales + first, rows.corrections + first, out,
                            stride);
  }
}

// Whole tiles of 16 rows here, the rows that are left with vectors over the same strip.
void amx_strip(const Strip<AmxVector>& strip, const PreparedRows& rows, const Tile& tile, float* out) {
  const auto kernel = strip.weight.has_zero_points ? tile_rows_times_strip<true> : tile_rows_times_strip<false>;
  int64_t r = 0;
  for (; r + kTileRows <= tile.rows; r += kTileRows)
    kernel(strip, rows, tile.row + r, out + r * tile.stride, tile.stride);
  Tile rest = tile;
  rest.row += r;
  rest.rows -= r;
  choose_strip_kernel<AmxVector, kPanels>(strip.weight)(strip, rows, rest, out + r * tile.stride);
}

}  // namespace

void amx_int8_tile(const PackedWeight& weight, const PreparedRows& rows, const Tile& tile) {
  if (tile.rows < kTileRows) return kAvx512VnniKernels.int8_tile(weight, rows, tile);
  configure_tiles(std::min(weight.block, kTileDepth));
  prefill_tile<AmxVector>(weight, rows, tile, amx_strip);
  _tile_release();
}

}  // namespace onnxq::cpu
