// The readable kernels: no intrinsics, one loop per idea. Every other path is tested against these.
#include <algorithm>
#include <bit>
#include <cmath>

#include "cpu/kernels.h"

namespace onnxq::cpu {
namespace {

float panel_scale(const PackedWeight& weight, int64_t panel, int64_t block, int column) {
  const int64_t slot = block * kPanelColumns + column;
  if (weight.half_scales) return half_to_float(reinterpret_cast<const uint16_t*>(weight.panel_scales(panel))[slot]);
  return reinterpret_cast<const float*>(weight.panel_scales(panel))[slot];
}

// One column of one block, read back from the panel layout.
struct BlockColumn {
  BlockColumn(const PackedWeight& w, int64_t panel, int64_t block, int column)
      : weight(w), low(w.low_lines(panel, block) + column * kGroup) {
    if (w.high.bits > 0) high = w.high_lines(panel, block) + column * kGroup;
    const int64_t slot = block * kPanelColumns + column;
    scale = panel_scale(w, panel, block, column);
    zero_point = w.has_zero_points ? w.panel_zero_points(panel)[slot] : w.symmetric_zero_point();
  }

  int code(int i) const {
    const int upper = high == nullptr ? 0 : part(high, weight.high.bits, i);
    return part(low, weight.low.bits, i) | upper << weight.low.bits;
  }

  // The low or the high bits of code i.
  static int part(const uint8_t* lines, int bits, int i) {
    const int fields = 8 / bits;
    const int group = i / kGroup;
    const uint8_t byte = lines[group / fields * kLineBytes + i % kGroup];
    return (byte >> (group % fields * bits)) & ((1 << bits) - 1);
  }

  const PackedWeight& weight;
  const uint8_t* low;
  const uint8_t* high = nullptr;
  float scale;
  int zero_point;
};

void widen(const uint16_t* half, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = half_to_float(half[i]);
}

void narrow(const float* values, int64_t count, uint16_t* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = float_to_half(values[i]);
}

// The bits of max|x|, which order like the numbers and put NaN above everything.
uint32_t largest_magnitude(const float* values, int64_t count) {
  uint32_t largest = 0;
  for (int64_t i = 0; i < count; ++i) largest = std::max(largest, std::bit_cast<uint32_t>(values[i]) & 0x7fffffffu);
  return largest;
}

void quantize_row(const PackedWeight& weight, const float* row, int8_t* codes, float* scales, int32_t* corrections) {
  const int32_t factor = weight.has_zero_points ? -1 : -weight.symmetric_zero_point();
  for (int64_t b = 0; b < weight.blocks; ++b) {
    const int64_t first = b * weight.block;
    const int64_t length = std::min<int64_t>(weight.block, weight.k - first);
    const BlockScale scale = block_scale(largest_magnitude(row + first, length));
    int32_t sum = 0;
    for (int64_t i = 0; i < weight.block; ++i) {
      const float scaled = i < length && scale.inverse > 0.0f ? row[first + i] * scale.inverse : 0.0f;
      codes[first + i] = static_cast<int8_t>(std::nearbyint(scaled));
      sum += codes[first + i];
    }
    scales[b] = scale.scale;
    corrections[b] = factor * sum;
  }
}

// y = sum over blocks of a_scale * w_scale * (integer dot product).
void int8_tile(const PackedWeight& weight, const PreparedRows& rows, const Tile& tile) {
  for (int64_t r = 0; r < tile.rows; ++r) {
    const int8_t* a = rows.codes + (tile.row + r) * weight.padded_k();
    const float* a_scales = rows.scales + (tile.row + r) * weight.blocks;
    const int32_t* corrections = rows.corrections + (tile.row + r) * weight.blocks;
    for (int64_t c = 0; c < tile.panels * kPanelColumns; ++c) {
      float y = 0.0f;
      for (int64_t b = 0; b < weight.blocks; ++b) {
        const BlockColumn w(weight, tile.panel + c / kPanelColumns, b, static_cast<int>(c % kPanelColumns));
        int32_t dot = corrections[b] * (weight.has_zero_points ? w.zero_point : 1);
        for (int i = 0; i < weight.block; ++i) dot += w.code(i) * a[b * weight.block + i];
        y = std::fma(static_cast<float>(dot) * w.scale, a_scales[b], y);
      }
      tile.out[r * tile.stride + c] = y;
    }
  }
}

// W[k, column] of a panel without its scale: code - zero_point, or a value of the codebook.
float unscaled(const PackedWeight& weight, int64_t panel, int64_t k, int column) {
  if (k >= weight.k) return 0.0f;
  const Codebook& codebook = weight.codebook;
  if (!codebook.in_register()) {
    const int64_t at = (panel * (weight.k / codebook.dim) + k / codebook.dim) * kPanelColumns + column;
    return codebook.values.data()[codebook.indices.data()[at] * codebook.dim + k % codebook.dim];
  }
  const BlockColumn w(weight, panel, k / weight.block, column);
  const int code = w.code(static_cast<int>(k % weight.block));
  return codebook ? codebook.values.data()[code] : static_cast<float>(code - w.zero_point);
}

// y = sum over blocks of w_scale * sum over the block of a * (code - zero_point).
void float_tile(const PackedWeight& weight, const PreparedRows& rows, const Tile& tile) {
  for (int64_t r = 0; r < tile.rows; ++r) {
    const float* a = rows.values + (tile.row + r) * weight.padded_k();
    for (int64_t c = 0; c < tile.panels * kPanelColumns; ++c) {
      float y = 0.0f;
      const int64_t panel = tile.panel + c / kPanelColumns;
      const int column = static_cast<int>(c % kPanelColumns);
      for (int64_t b = 0; b < weight.blocks; ++b) {
        float dot = 0.0f;
        for (int64_t k = b * weight.block; k < (b + 1) * weight.block; ++k)
          dot = std::fma(a[k], unscaled(weight, panel, k, column), dot);
        y = std::fma(dot, panel_scale(weight, panel, b, column), y);
      }
      tile.out[r * tile.stride + c] = y;
    }
  }
}

}  // namespace

const Kernels kScalarKernels = {widen, narrow, quantize_row, int8_tile, float_tile};

}  // namespace onnxq::cpu
