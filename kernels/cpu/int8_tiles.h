// The int8 product for every instruction set: decode for few rows, prefill for many.
//
// Both compute, block after block, an exact integer dot product and then
//     y = fma(float(dot) * w_scale, a_scale, y)
// in the order of the scalar kernel, so all instruction sets give the same bits.
#pragma once

#include <array>

#include "cpu/panel_reader.h"

namespace onnxq::cpu {

// Rows that one pass over the packed codes serves; above twice that, unpacking once pays.
inline constexpr int64_t kDecodeRows = 4;

template <class V>
ONNXQ_INLINE inline typename V::Float accumulate(typename V::Int dot, typename V::Float w_scale, float a_scale,
                                                 typename V::Float y) {
  return V::fma(V::multiply(V::to_float(dot), w_scale), V::broadcast(a_scale), y);
}

// sums += A x codes over one block, whose codes are unpacked in registers.
template <class V, int kLow, int kHigh, int kRows>
ONNXQ_INLINE inline void dot_groups(const uint8_t* low, const uint8_t* high, int depth, const int8_t* a,
                                    int64_t a_stride, typename V::Int (&sums)[kRows][V::kParts]) {
  for (int g = 0; g < depth / kGroup; g += 4)  // a block has at least 4 groups
    unrolled<4>([&](auto i) ONNXQ_INLINE {
      if (i % (8 / kLow) == 0) __builtin_prefetch(low + (g + i) / (8 / kLow) * kLineBytes + kPrefetchBytes);
      unrolled<V::kParts>([&](auto p) ONNXQ_INLINE {
        const auto codes = group_codes<V, kLow, kHigh>(low, high, g + i, p);
        unrolled<kRows>([&](auto r) ONNXQ_INLINE {
          const auto group = broadcast_group<V>(a + r * a_stride + (g + i) * kGroup);
          sums[r][p] = V::template dot<kLow + kHigh>(sums[r][p], codes, group);
        });
      });
    });
}

// The same with half the unpacking, where a dot product takes any byte: a field is masked but not
// shifted down, and so counts 2^shift times too much. Each field has sums of its own, and one shift a
// block (they are exact multiples) replaces one a line.
template <class V, int kBits, int kRows>
ONNXQ_INLINE inline void dot_fields(const uint8_t* lines, int depth, const int8_t* a, int64_t a_stride,
                                    typename V::Int (&sums)[kRows][V::kParts]) {
  constexpr int kFields = 8 / kBits;
  unrolled<V::kParts>([&](auto p) ONNXQ_INLINE {
    typename V::Int fields[kRows][kFields];
    unrolled<kRows>([&](auto r) ONNXQ_INLINE {
      fields[r][0] = sums[r][p];
      unrolled<kFields - 1>([&](auto f) ONNXQ_INLINE { fields[r][f + 1] = V::broadcast(int32_t{0}); });
    });
    const uint8_t* from = lines + p * V::kBytes;
    for (int k = 0; k < depth; k += kFields * kGroup, from += kLineBytes) {
      const auto line = V::load_codes(from);
      __builtin_prefetch(from + kPrefetchBytes);
      unrolled<kFields>([&](auto f) ONNXQ_INLINE {
        const auto codes = V::and_bytes(line, ((1 << kBits) - 1) << (f * kBits));
        unrolled<kRows>([&](auto r) ONNXQ_INLINE {
          const auto group = broadcast_group<V>(a + r * a_stride + k + f * kGroup);
          fields[r][f] = V::template dot<8>(fields[r][f], codes, group);
        });
      });
    }
    unrolled<kRows>([&](auto r) ONNXQ_INLINE {
      sums[r][p] = fields[r][0];
      unrolled<kFields - 1>([&](auto f) ONNXQ_INLINE {
        sums[r][p] = V::add(sums[r][p], V::shift_right_signed(fields[r][f + 1], (f + 1) * kBits));
      });
    });
  });
}

// Decode: kRows rows from `row` on times one panel. Every line is read once and unpacked in registers.
template <class V, int kLow, int kHigh, int kRows, bool kZeroPoints>
void decode_panel(const PackedWeight& weight, const PreparedRows& rows, int64_t row, int64_t panel, float* out,
                  int64_t stride) {
  const BlockParameters<V> parameters(weight, panel);
  const uint8_t* low = weight.low_lines(panel, 0);
  const uint8_t* high = kHigh > 0 ? weight.high_lines(panel, 0) : nullptr;
  const int8_t* a = rows.codes + row * weight.padded_k();
  const int64_t a_stride = weight.padded_k();
  const int64_t per_block = weight.blocks;
  const float* a_scales = rows.scales + row * per_block;
  const int32_t* corrections = rows.corrections + row * per_block;
  typename V::Float y[kRows][V::kParts];
  unrolled<kRows>([&](auto r) ONNXQ_INLINE {
    unrolled<V::kParts>([&](auto p) ONNXQ_INLINE { y[r][p] = V::broadcast(0.0f); });
  });
  for (int64_t b = 0; b < weight.blocks; ++b) {
    typename V::Int sums[kRows][V::kParts];
    unrolled<kRows>([&](auto r) ONNXQ_INLINE {
      unrolled<V::kParts>([&](auto p) ONNXQ_INLINE {
        sums[r][p] = parameters.template start<kZeroPoints>(b, p, corrections[r * per_block + b]);
      });
    });
    if constexpr (V::kDotsFields && kHigh == 0 && kLow < 8) {
      dot_fields<V, kLow, kRows>(low, weight.block, a, a_stride, sums);
    } else {
      dot_groups<V, kLow, kHigh, kRows>(low, high, weight.block, a, a_stride, sums);
    }
    unrolled<V::kParts>([&](auto p) ONNXQ_INLINE {
      const auto scales = parameters.scales(b, p);
      unrolled<kRows>([&](auto r) ONNXQ_INLINE {
        y[r][p] = accumulate<V>(sums[r][p], scales, a_scales[r * per_block + b], y[r][p]);
      });
    });
    low += weight.low.block_bytes;
    if (kHigh > 0) high += weight.high.block_bytes;
    a += weight.block;
  }
  unrolled<kRows>([&](auto r) ONNXQ_INLINE {
    unrolled<V::kParts>([&](auto p) ONNXQ_INLINE { V::store(out + r * stride + p * V::kColumns, y[r][p]); });
  });
}

template <class V, int kLow, int kHigh, int kRows>
void decode_rows(const PackedWeight& weight, const PreparedRows& rows, const Tile& tile, int64_t r) {
  const auto kernel = weight.has_zero_points ? decode_panel<V, kLow, kHigh, kRows, true>
                                             : decode_panel<V, kLow, kHigh, kRows, false>;
  for (int64_t p = 0; p < tile.panels; ++p)
    kernel(weight, rows, tile.row + r, tile.panel + p, tile.out + r * tile.stride + p * kPanelColumns, tile.stride);
}

template <class V>
void decode_tile(const PackedWeight& weight, const PreparedRows& rows, const Tile& tile) {
  for_bits(weight.bits, [&]<int kLow, int kHigh>() {
    int64_t r = 0;
    for (; r + kDecodeRows <= tile.rows; r += kDecodeRows)
      decode_rows<V, kLow, kHigh, kDecodeRows>(weight, rows, tile, r);
    for (; r + 2 <= tile.rows; r += 2) decode_rows<V, kLow, kHigh, 2>(weight, rows, tile, r);
    if (r < tile.rows) decode_rows<V, kLow, kHigh, 1>(weight, rows, tile, r);
  });
}

// Asks for a line to be brought to the L2 cache; the L1 cache holds the strip.
ONNXQ_INLINE inline void prefetch_far(const void* line) { __builtin_prefetch(line, 0, 2); }

// A strip: some neighbouring panels x up to 256 k, unpacked to bytes in the order of the panel's lines.
// Small enough for the L1 cache, where every row of the tile passes over it.
template <class V>
struct Strip {
  Strip(const PackedWeight& w, int64_t first_panel) : weight(w), panel(first_panel) {}

  void unpack(int64_t panels) {
    const int64_t ahead = blocks * weight.low.block_bytes;
    for_bits(weight.bits, [&]<int kLow, int kHigh>() {
      for (int64_t i = 0; i < panels; ++i)
        for (int64_t b = 0; b < blocks; ++b) {
          const uint8_t* low = weight.low_lines(panel + i, block + b);
          const uint8_t* high = kHigh > 0 ? weight.high_lines(panel + i, block + b) : nullptr;
          uint8_t* out = codes[i] + b * weight.block * kPanelColumns;
          for (int g = 0; g < weight.block / kGroup; g += 4)
            unrolled<4>([&](auto j) ONNXQ_INLINE {
              // The panel's part of the next strip follows; while the rows pass over this one, it arrives.
              if (j % (8 / kLow) == 0) prefetch_far(low + ahead + (g + j) / (8 / kLow) * kLineBytes);
              unrolled<V::kParts>([&](auto p) ONNXQ_INLINE {
                V::store_codes(out + (g + j) * kLineBytes + p * V::kBytes,
                               group_codes<V, kLow, kHigh>(low, high, g + j, p));
              });
            });
        }
    });
  }

  const PackedWeight& weight;
  int64_t panel;
  int64_t block = 0;
  int64_t blocks = 0;
  alignas(kCacheLine) uint8_t codes[V::kStripPanels][kMaxBlock * kPanelColumns];
};

// kRows x kPanels integer sums of one block; a register holds part `i % kParts` of panel `i / kParts`.
template <class V, int kRows, int kPanels>
using RegisterTile = typename V::Int[kRows][kPanels * V::kParts];

// sums += A x a block of a strip.
template <class V, int kRows, int kPanels, bool kWide>
ONNXQ_INLINE inline void dot_strip(const uint8_t* codes, int64_t panel_bytes, int depth, const int8_t* a,
                                   int64_t a_stride, RegisterTile<V, kRows, kPanels>& sums) {
  for (int k = 0; k < depth; k += kGroup) {
    typename V::Int lines[kPanels * V::kParts];
    unrolled<kPanels * V::kParts>([&](auto i) ONNXQ_INLINE {
      lines[i] = V::load_codes(codes + i / V::kParts * panel_bytes + k * kPanelColumns + i % V::kParts * V::kBytes);
    });
    unrolled<kRows>([&](auto r) ONNXQ_INLINE {
      const auto group = broadcast_group<V>(a + r * a_stride + k);
      unrolled<kPanels * V::kParts>([&](auto i) ONNXQ_INLINE {
        sums[r][i] = V::template dot<kWide ? 8 : 6>(sums[r][i], lines[i], group);
      });
    });
  }
}

// out += sums of a block, scaled. Row after row: the scales of all columns stay in registers, and so every
// sum costs its arithmetic and a store. a_scales: of the first row, a_stride apart.
template <class V, int kRows, int kPanels>
ONNXQ_INLINE inline void add_scaled(const RegisterTile<V, kRows, kPanels>& sums, const PackedWeight& weight,
                                    int64_t panel, int64_t block, const float* a_scales, int64_t a_stride,
                                    float* out, int64_t stride) {
  typename V::Float scales[kPanels * V::kParts];
  unrolled<kPanels * V::kParts>([&](auto i) ONNXQ_INLINE {
    scales[i] = BlockParameters<V>(weight, panel + i / V::kParts).scales(block, i % V::kParts);
  });
  unrolled<kRows>([&](auto r) ONNXQ_INLINE {
    float* y = out + r * stride;
    const float a_scale = a_scales[r * a_stride];
    unrolled<kPanels * V::kParts>([&](auto i) ONNXQ_INLINE {
      V::store(y + i * V::kColumns, accumulate<V>(sums[r][i], scales[i], a_scale, V::load(y + i * V::kColumns)));
    });
  });
}

// kRows rows from `row` on, times a strip, added to out. The integer sums of kRows x kPanels fill the
// registers; the float sums wait in `out` and are read and written once per block.
template <class V, int kRows, int kPanels, bool kWide, bool kZeroPoints>
void rows_times_strip(const Strip<V>& strip, const PreparedRows& rows, int64_t row, float* out, int64_t stride) {
  const PackedWeight& weight = strip.weight;
  const int64_t per_row = weight.blocks;
  const int64_t a_stride = weight.padded_k();
  const int8_t* a = rows.codes + row * a_stride + strip.block * weight.block;
  const float* a_scales = rows.scales + row * per_row + strip.block;
  const int32_t* corrections = rows.corrections + row * per_row + strip.block;
  const uint8_t* codes = strip.codes[0];
  for (int64_t b = 0; b < strip.blocks; ++b) {
    RegisterTile<V, kRows, kPanels> sums;
    unrolled<kPanels * V::kParts>([&](auto i) ONNXQ_INLINE {
      const BlockParameters<V> parameters(weight, strip.panel + i / V::kParts);
      unrolled<kRows>([&](auto r) ONNXQ_INLINE {
        sums[r][i] =
            parameters.template start<kZeroPoints>(strip.block + b, i % V::kParts, corrections[r * per_row + b]);
      });
    });
    dot_strip<V, kRows, kPanels, kWide>(codes, sizeof(strip.codes[0]), weight.block, a, a_stride, sums);
    add_scaled<V, kRows, kPanels>(sums, weight, strip.panel, strip.block + b, a_scales + b, per_row, out, stride);
    codes += weight.block * kPanelColumns;
    a += weight.block;
  }
}

template <class V>
using RowsTimesStrip = void (*)(const Strip<V>&, const PreparedRows&, int64_t, float*, int64_t);

// All rows of a tile times a strip, in register tiles of nearly equal height (16 rows are 6 + 5 + 5): a
// tile of one or two rows has too few sums to hide the latency of a dot product.
template <class V, int kPanels, bool kWide, bool kZeroPoints>
void tile_times_strip(const Strip<V>& strip, const PreparedRows& rows, const Tile& tile, float* out) {
  static constexpr auto kKernels = []<int... kHeight>(std::integer_sequence<int, kHeight...>) {
    return std::array<RowsTimesStrip<V>, sizeof...(kHeight)>{
        rows_times_strip<V, kHeight + 1, kPanels, kWide, kZeroPoints>...};
  }(std::make_integer_sequence<int, V::kRegisterRows>{});
  for (int64_t r = 0; r < tile.rows;) {
    const int64_t left = tile.rows - r;
    const int64_t tiles = (left + V::kRegisterRows - 1) / V::kRegisterRows;
    const int64_t height = (left + tiles - 1) / tiles;
    kKernels[static_cast<std::size_t>(height - 1)](strip, rows, tile.row + r, out + r * tile.stride, tile.stride);
    r += height;
  }
}

template <class V>
using TileTimesStrip = void (*)(const Strip<V>&, const PreparedRows&, const Tile&, float*);

template <class V, int kPanels>
TileTimesStrip<V> choose_strip_kernel(const PackedWeight& weight) {
  const bool wide = weight.bits == 8;
  if (weight.has_zero_points)
    return wide ? tile_times_strip<V, kPanels, true, true> : tile_times_strip<V, kPanels, false, true>;
  return wide ? tile_times_strip<V, kPanels, true, false> : tile_times_strip<V, kPanels, false, false>;
}

// Prefill. `whole` multiplies all rows of a tile by a strip of V::kStripPanels panels.
template <class V>
void prefill_tile(const PackedWeight& weight, const PreparedRows& rows, const Tile& tile, TileTimesStrip<V> whole) {
  for (int64_t r = 0; r < tile.rows; ++r)
    std::fill_n(tile.out + r * tile.stride, tile.panels * kPanelColumns, 0.0f);
  const int64_t strip_blocks = kMaxBlock / weight.block;
  for (int64_t p = 0; p < tile.panels;) {
    const int64_t panels = tile.panels - p >= V::kStripPanels ? V::kStripPanels : 1;
    const auto kernel = panels == V::kStripPanels ? whole : choose_strip_kernel<V, 1>(weight);
    Strip<V> strip(weight, tile.panel + p);
    for (; strip.block < weight.blocks; strip.block += strip_blocks) {
      strip.blocks = std::min(strip_blocks, weight.blocks - strip.block);
      strip.unpack(panels);
      kernel(strip, rows, tile, tile.out + p * kPanelColumns);
    }
    p += panels;
  }
}

template <class V>
void int8_tile(const PackedWeight& weight, const PreparedRows& rows, const Tile& tile) {
  if (tile.rows <= 2 * kDecodeRows) return decode_tile<V>(weight, rows, tile);
  prefill_tile<V>(weight, rows, tile, choose_strip_kernel<V, V::kStripPanels>(weight));
}

}  // namespace onnxq::cpu
