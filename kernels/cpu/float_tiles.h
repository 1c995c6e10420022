// The float product for every instruction set: a strip of W is made float (code - zero point, exact),
// and fused multiply-adds run over it; the block's scale comes after its sum, as in the scalar kernel.
#pragma once

#include "cpu/panel_reader.h"

namespace onnxq::cpu {

// One panel x up to 256 k of W without its scales: values[k][16].
template <class V>
struct FloatStrip {
  FloatStrip(const PackedWeight& w, int64_t p) : weight(w), panel(p) {}

  void unpack() {
    if (!weight.codebook.in_register()) return look_up_vectors();
    for_bits(weight.bits, [&]<int kLow, int kHigh>() {
      for (int64_t b = 0; b < blocks; ++b)
        unpack_block<kLow, kHigh>(block + b, values + b * weight.block * kPanelColumns);
    });
  }

  const PackedWeight& weight;
  int64_t panel;
  int64_t block = 0;
  int64_t blocks = 0;
  alignas(kCacheLine) float values[kMaxBlock * kPanelColumns];

 private:
  template <int kLow, int kHigh>
  void unpack_block(int64_t b, float* out) const {
    const BlockParameters<V> parameters(weight, panel);
    const uint8_t* low = weight.low_lines(panel, b);
    const uint8_t* high = kHigh > 0 ? weight.high_lines(panel, b) : nullptr;
    typename V::Int zero_points[V::kParts];
    unrolled<V::kParts>([&](auto p) ONNXQ_INLINE {
      zero_points[p] = weight.has_zero_points ? parameters.zero_points(b, p)
                                              : V::broadcast(int32_t{weight.symmetric_zero_point()});
    });
    for (int g = 0; g < weight.block / kGroup; g += 4)
      unrolled<4>([&](auto j) ONNXQ_INLINE {
        unrolled<V::kParts>([&](auto p) ONNXQ_INLINE {
          const auto codes = group_codes<V, kLow, kHigh>(low, high, g + j, p);
          unrolled<kGroup>([&](auto i) ONNXQ_INLINE {
            const auto code = V::and_lanes(V::shift_right_lanes(codes, 8 * i), 0xff);
            float* to = out + ((g + j) * kGroup + i) * kPanelColumns + p * V::kColumns;
            V::store(to, value(code, zero_points[p]));
          });
        });
      });
  }

  void look_up_vectors() {
    const int dim = weight.codebook.dim;
    const int64_t first = block * weight.block / dim;  // row of indices
    const int64_t rows = std::min(blocks * weight.block, weight.k - block * weight.block) / dim;
    const uint8_t* indices = weight.codebook.indices.data() + (panel * (weight.k / dim) + first) * kPanelColumns;
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t c = 0; c < kPanelColumns; ++c) {
        const float* entry = weight.codebook.values.data() + indices[row * kPanelColumns + c] * dim;
        for (int i = 0; i < dim; ++i) values[(row * dim + i) * kPanelColumns + c] = entry[i];
      }
    std::fill(values + rows * dim * kPanelColumns, values + blocks * weight.block * kPanelColumns, 0.0f);
  }

  ONNXQ_INLINE typename V::Float value(typename V::Int code, typename V::Int zero_point) const {
    if (!weight.codebook) return V::to_float(V::subtract(code, zero_point));
    return V::look_up(weight.codebook.values.data(), code);
  }
};

// kRows rows from `row` on, times a strip, added to out.
template <class V, int kRows>
void float_rows(const FloatStrip<V>& strip, const PreparedRows& rows, int64_t row, float* out, int64_t stride) {
  const PackedWeight& weight = strip.weight;
  const BlockParameters<V> parameters(weight, strip.panel);
  for (int64_t b = 0; b < strip.blocks; ++b) {
    const float* a = rows.values + row * weight.padded_k() + (strip.block + b) * weight.block;
    const float* w = strip.values + b * weight.block * kPanelColumns;
    typename V::Float sums[kRows][V::kParts];
    unrolled<kRows>([&](auto r) ONNXQ_INLINE {
      unrolled<V::kParts>([&](auto p) ONNXQ_INLINE { sums[r][p] = V::broadcast(0.0f); });
    });
    for (int k = 0; k < weight.block; ++k) {
      typename V::Float line[V::kParts];
      unrolled<V::kParts>([&](auto p) ONNXQ_INLINE { line[p] = V::load(w + k * kPanelColumns + p * V::kColumns); });
      unrolled<kRows>([&](auto r) ONNXQ_INLINE {
        const auto broadcast = V::broadcast(a[r * weight.padded_k() + k]);
        unrolled<V::kParts>([&](auto p) ONNXQ_INLINE { sums[r][p] = V::fma(broadcast, line[p], sums[r][p]); });
      });
    }
    unrolled<V::kParts>([&](auto p) ONNXQ_INLINE {
      const auto scales = parameters.scales(strip.block + b, p);
      unrolled<kRows>([&](auto r) ONNXQ_INLINE {
        float* y = out + r * stride + p * V::kColumns;
        V::store(y, V::fma(sums[r][p], scales, V::load(y)));
      });
    });
  }
}

// One row times kPanels panels, straight from the packed codes: with one row nothing is used twice.
// Several panels at once, because the sum over k of one panel is a chain of dependent additions.
template <class V, int kLow, int kHigh, int kPanels, bool kCodebook>
void float_row(const PackedWeight& weight, const PreparedRows& rows, int64_t row, int64_t panel, float* out) {
  constexpr int kRegisters = kPanels * V::kParts;  // a register: part `i % kParts` of panel `i / kParts`
  const float* a = rows.values + row * weight.padded_k();
  typename V::Float y[kRegisters];
  unrolled<kRegisters>([&](auto i) ONNXQ_INLINE { y[i] = V::broadcast(0.0f); });
  for (int64_t b = 0; b < weight.blocks; ++b, a += weight.block) {
    typename V::Float sums[kRegisters];
    typename V::Int zero_points[kRegisters];
    unrolled<kRegisters>([&](auto i) ONNXQ_INLINE {
      sums[i] = V::broadcast(0.0f);
      zero_points[i] = weight.has_zero_points
                           ? BlockParameters<V>(weight, panel + i / V::kParts).zero_points(b, i % V::kParts)
                           : V::broadcast(int32_t{weight.symmetric_zero_point()});
    });
    for (int g = 0; g < weight.block / kGroup; ++g) {
      typename V::Int codes[kRegisters];
      unrolled<kRegisters>([&](auto i) ONNXQ_INLINE {
        const int64_t p = panel + i / V::kParts;
        const uint8_t* high = kHigh > 0 ? weight.high_lines(p, b) : nullptr;
        const uint8_t* low = weight.low_lines(p, b);
        if (g % (8 / kLow) == 0) __builtin_prefetch(low + g / (8 / kLow) * kLineBytes + kPrefetchBytes);
        codes[i] = group_codes<V, kLow, kHigh>(low, high, g, i % V::kParts);
      });
      unrolled<kGroup>([&](auto j) ONNXQ_INLINE {
        const auto broadcast = V::broadcast(a[g * kGroup + j]);
        unrolled<kRegisters>([&](auto i) ONNXQ_INLINE {
          const auto code = V::shift_right_lanes(codes[i], 8 * j);  // and other codes above it
          const auto value = kCodebook ? V::look_up(weight.codebook.values.data(), code)
                                       : V::to_float(V::subtract(V::and_lanes(code, 0xff), zero_points[i]));
          sums[i] = V::fma(broadcast, value, sums[i]);
        });
      });
    }
    unrolled<kRegisters>([&](auto i) ONNXQ_INLINE {
      const auto scales = BlockParameters<V>(weight, panel + i / V::kParts).scales(b, i % V::kParts);
      y[i] = V::fma(sums[i], scales, y[i]);
    });
  }
  unrolled<kRegisters>([&](auto i) ONNXQ_INLINE { V::store(out + i * V::kColumns, y[i]); });
}

template <class V>
void float_decode_tile(const PackedWeight& weight, const PreparedRows& rows, const Tile& tile) {
  constexpr int kPanels = V::kStripPanels;
  const bool codebook = static_cast<bool>(weight.codebook);
  for_bits(weight.bits, [&]<int kLow, int kHigh>() {
    const auto some = codebook ? float_row<V, kLow, kHigh, kPanels, true> : float_row<V, kLow, kHigh, kPanels, false>;
    const auto one = codebook ? float_row<V, kLow, kHigh, 1, true> : float_row<V, kLow, kHigh, 1, false>;
    for (int64_t r = 0; r < tile.rows; ++r)
      for (int64_t p = 0; p < tile.panels;) {
        const bool whole = tile.panels - p >= kPanels;
        float* out = tile.out + r * tile.stride + p * kPanelColumns;
        (whole ? some : one)(weight, rows, tile.row + r, tile.panel + p, out);
        p += whole ? kPanels : 1;
      }
  });
}

template <class V>
void float_prefill_tile(const PackedWeight& weight, const PreparedRows& rows, const Tile& tile) {
  for (int64_t r = 0; r < tile.rows; ++r)
    std::fill_n(tile.out + r * tile.stride, tile.panels * kPanelColumns, 0.0f);
  const int64_t strip_blocks = kMaxBlock / weight.block;
  for (int64_t p = 0; p < tile.panels; ++p) {
    FloatStrip<V> strip(weight, tile.panel + p);
    float* out = tile.out + p * kPanelColumns;
    for (; strip.block < weight.blocks; strip.block += strip_blocks) {
      strip.blocks = std::min(strip_blocks, weight.blocks - strip.block);
      strip.unpack();
      int64_t r = 0;
      for (; r + V::kFloatRows <= tile.rows; r += V::kFloatRows)
        float_rows<V, V::kFloatRows>(strip, rows, tile.row + r, out + r * tile.stride, tile.stride);
      for (; r < tile.rows; ++r) float_rows<V, 1>(strip, rows, tile.row + r, out + r * tile.stride, tile.stride);
    }
  }
}

template <class V>
void float_tile(const PackedWeight& weight, const PreparedRows& rows, const Tile& tile) {
  if (tile.rows <= 2 && weight.codebook.in_register()) return float_decode_tile<V>(weight, rows, tile);
  float_prefill_tile<V>(weight, rows, tile);
}

}  // namespace onnxq::cpu
