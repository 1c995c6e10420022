// Few rows (decode): every line of codes is read once, straight into registers, for up to 4 rows.
//
// A line holds 8 / bits fields. A field is masked but not shifted down: field f then counts
// 2^(bits * f) times too much, so each field has an accumulator of its own, and one shift per block and
// field (the sums are exact multiples) replaces one per line. Per line of 4-bit codes and row that is
// 2 masks and 2 dot products for 128 multiplications.
#include "cpu/avx512_tiles.h"
#include "cpu/unroll.h"

namespace onnxq::cpu::avx512 {
namespace {

// sums += A x codes over one block.
template <int kBits, int kRows>
ONNXQ_INLINE inline void add_block(const uint8_t* lines, int depth, const int8_t* a, int64_t a_stride,
                                   __m512i (&sums)[kRows]) {
  constexpr int kFields = 8 / kBits;
  __m512i fields[kRows][kFields];
  unrolled<kRows>([&](auto r) ONNXQ_INLINE {
    fields[r][0] = sums[r];
    unrolled<kFields - 1>([&](auto f) ONNXQ_INLINE { fields[r][f + 1] = _mm512_setzero_si512(); });
  });
  for (int k = 0; k < depth; k += kFields * kGroup, lines += kLineBytes) {
    const __m512i line = _mm512_load_si512(lines);
    unrolled<kFields>([&](auto f) ONNXQ_INLINE {
      const auto mask = static_cast<char>(((1 << kBits) - 1) << (f * kBits));
      const __m512i codes = kBits == 8 ? line : _mm512_and_si512(line, _mm512_set1_epi8(mask));
      unrolled<kRows>([&](auto r) ONNXQ_INLINE {
        fields[r][f] = dot(fields[r][f], codes, broadcast_group(a + r * a_stride + k + f * kGroup));
      });
    });
  }
  unrolled<kRows>([&](auto r) ONNXQ_INLINE {
    sums[r] = fields[r][0];
    unrolled<kFields - 1>([&](auto f) ONNXQ_INLINE {
      sums[r] = _mm512_add_epi32(sums[r], _mm512_srai_epi32(fields[r][f + 1], (f + 1) * kBits));
    });
  });
}

// One panel of `kRows` rows, all of K.
template <int kBits, int kRows, bool kZeroPoints>
void panel_rows(const PackedWeight& weight, const PreparedRows& rows, int64_t row, int64_t panel, float* out,
                int64_t stride) {
  const BlockParameters parameters(weight, panel);
  const uint8_t* lines = weight.low_lines(panel, 0);
  const int8_t* a = rows.codes + row * weight.padded_k();
  const float* a_scales = rows.scales + row * weight.blocks;
  const int32_t* corrections = rows.corrections + row * weight.blocks;
  __m512 y[kRows];
  unrolled<kRows>([&](auto r) ONNXQ_INLINE { y[r] = _mm512_setzero_ps(); });
  for (int64_t b = 0; b < weight.blocks; ++b, lines += weight.low.block_bytes, a += weight.block) {
    __m512i sums[kRows];
    unrolled<kRows>([&](auto r) ONNXQ_INLINE {
      sums[r] = parameters.start<kZeroPoints>(b, corrections[r * weight.blocks + b]);
    });
    add_block<kBits, kRows>(lines, weight.block, a, weight.padded_k(), sums);
    const __m512 scales = parameters.scales(b);
    unrolled<kRows>([&](auto r) ONNXQ_INLINE {
      y[r] = accumulate(sums[r], scales, a_scales[r * weight.blocks + b], y[r]);
    });
  }
  unrolled<kRows>([&](auto r) ONNXQ_INLINE { _mm512_storeu_ps(out + r * stride, y[r]); });
}

using PanelRows = void (*)(const PackedWeight&, const PreparedRows&, int64_t, int64_t, float*, int64_t);

template <int kBits>
PanelRows choose(int64_t rows, bool zero_points) {
  switch (rows * 2 + zero_points) {
    case 2: return panel_rows<kBits, 1, false>;
    case 3: return panel_rows<kBits, 1, true>;
    case 4: return panel_rows<kBits, 2, false>;
    case 5: return panel_rows<kBits, 2, true>;
    case 6: return panel_rows<kBits, 3, false>;
    case 7: return panel_rows<kBits, 3, true>;
    case 8: return panel_rows<kBits, 4, false>;
    default: return panel_rows<kBits, 4, true>;
  }
}

}  // namespace

void decode_tile(const PackedWeight& weight, const PreparedRows& rows, const Tile& tile) {
  for (int64_t r = 0; r < tile.rows; r += kDecodeRows) {
    const int64_t count = std::min<int64_t>(kDecodeRows, tile.rows - r);
    const PanelRows panel_rows = weight.bits == 2   ? choose<2>(count, weight.has_zero_points)
                                 : weight.bits == 4 ? choose<4>(count, weight.has_zero_points)
                                                    : choose<8>(count, weight.has_zero_points);
    for (int64_t p = 0; p < tile.panels; ++p)
      panel_rows(weight, rows, tile.row + r, tile.panel + p, tile.out + r * tile.stride + p * kPanelColumns,
                 tile.stride);
  }
}

}  // namespace onnxq::cpu::avx512
