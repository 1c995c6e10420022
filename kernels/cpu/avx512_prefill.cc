// Many rows (prefill): a strip of 64 columns x up to 256 k is unpacked to bytes once, 16 KB that stay in
// the L1 cache, and every row of the tile passes over it.
//
// The inner kernel holds 6 rows x 4 panels of integer sums in 24 registers: 4 loads of codes and 6
// broadcasts feed 24 dot products. Float sums do not fit beside them; they wait in the tile, which is
// read and written once per block.
#include "cpu/avx512_tiles.h"
#include "cpu/avx512_unpack.h"
#include "cpu/unroll.h"

namespace onnxq::cpu::avx512 {
namespace {

constexpr int64_t kStripPanels = 4;
constexpr int64_t kStripDepth = kMaxBlock;  // at least one block of any size
constexpr int kRegisterRows = 6;

// A strip: `panels` neighbouring panels, `blocks` blocks of K from `block` on, unpacked.
struct Strip {
  Strip(const PackedWeight& w, int64_t first_panel) : weight(w), panel(first_panel) {}

  const PackedWeight& weight;
  int64_t panel;
  int64_t block = 0;
  int64_t blocks = 0;
  alignas(kCacheLine) uint8_t codes[kStripPanels][kStripDepth * kPanelColumns];
};

// kRows rows from `row` on, times a strip, added to out.
template <int kRows, int kPanels, bool kZeroPoints>
void rows_times_strip(const Strip& strip, const PreparedRows& rows, int64_t row, float* out, int64_t stride) {
  const PackedWeight& weight = strip.weight;
  for (int64_t b = 0; b < strip.blocks; ++b) {
    const int64_t block = strip.block + b;
    const int32_t* corrections = rows.corrections + row * weight.blocks + block;
    __m512i sums[kRows][kPanels];
    unrolled<kPanels>([&](auto p) ONNXQ_INLINE {
      const BlockParameters parameters(weight, strip.panel + p);
      unrolled<kRows>([&](auto r) ONNXQ_INLINE {
        sums[r][p] = parameters.start<kZeroPoints>(block, corrections[r * weight.blocks]);
      });
    });

    const uint8_t* strip_codes = strip.codes[0] + b * weight.block * kPanelColumns;
    const int8_t* a = rows.codes + row * weight.padded_k() + block * weight.block;
    for (int k = 0; k < weight.block; k += kGroup) {
      __m512i codes[kPanels];
      unrolled<kPanels>([&](auto p) ONNXQ_INLINE {
        codes[p] = _mm512_load_si512(strip_codes + p * sizeof(strip.codes[0]) + k * kPanelColumns);
      });
      unrolled<kRows>([&](auto r) ONNXQ_INLINE {
        const __m512i group = broadcast_group(a + r * weight.padded_k() + k);
        unrolled<kPanels>([&](auto p) ONNXQ_INLINE { sums[r][p] = dot(sums[r][p], codes[p], group); });
      });
    }

    const float* a_scales = rows.scales + row * weight.blocks + block;
    unrolled<kPanels>([&](auto p) ONNXQ_INLINE {
      const __m512 scales = BlockParameters(weight, strip.panel + p).scales(block);
      unrolled<kRows>([&](auto r) ONNXQ_INLINE {
        float* y = out + r * stride + p * kPanelColumns;
        _mm512_storeu_ps(y, accumulate(sums[r][p], scales, a_scales[r * weight.blocks], _mm512_loadu_ps(y)));
      });
    });
  }
}

using RowsTimesStrip = void (*)(const Strip&, const PreparedRows&, int64_t, float*, int64_t);

template <int kPanels, bool kZeroPoints>
RowsTimesStrip choose(int64_t rows) {
  constexpr RowsTimesStrip kernels[] = {
      rows_times_strip<1, kPanels, kZeroPoints>, rows_times_strip<2, kPanels, kZeroPoints>,
      rows_times_strip<3, kPanels, kZeroPoints>, rows_times_strip<4, kPanels, kZeroPoints>,
      rows_times_strip<5, kPanels, kZeroPoints>, rows_times_strip<6, kPanels, kZeroPoints>};
  return kernels[std::min<int64_t>(rows, kRegisterRows) - 1];
}

template <int kPanels>
void multiply(const Strip& strip, const PreparedRows& rows, const Tile& tile, float* out) {
  for (int64_t r = 0; r < tile.rows; r += kRegisterRows) {
    const auto kernel = strip.weight.has_zero_points ? choose<kPanels, true>(tile.rows - r)
                                                     : choose<kPanels, false>(tile.rows - r);
    kernel(strip, rows, tile.row + r, out + r * tile.stride, tile.stride);
  }
}

}  // namespace

void prefill_tile(const PackedWeight& weight, const PreparedRows& rows, const Tile& tile) {
  for (int64_t r = 0; r < tile.rows; ++r) std::fill_n(tile.out + r * tile.stride, tile.panels * kPanelColumns, 0.0f);
  const int64_t strip_blocks = kStripDepth / weight.block;
  for (int64_t p = 0; p < tile.panels;) {
    const int64_t panels = tile.panels - p >= kStripPanels ? kStripPanels : 1;
    Strip strip(weight, tile.panel + p);
    for (; strip.block < weight.blocks; strip.block += strip_blocks) {
      strip.blocks = std::min(strip_blocks, weight.blocks - strip.block);
      for (int64_t i = 0; i < panels; ++i)
        unpack(weight, strip.panel + i, strip.block, strip.blocks, strip.codes[i]);
      float* out = tile.out + p * kPanelColumns;
      if (panels == kStripPanels) {
        multiply<kStripPanels>(strip, rows, tile, out);
      } else {
        multiply<1>(strip, rows, tile, out);
      }
    }
    p += panels;
  }
}

}  // namespace onnxq::cpu::avx512
