#include "cpu/panel.h"

#include <algorithm>
#include <cstring>

namespace onnxq::cpu {

PackedWeight::PackedWeight(const WeightSource& source)
    : k(source.k),
      n(source.n),
      blocks(source.blocks()),
      panels((source.n + kPanelColumns - 1) / kPanelColumns),
      block(source.block),
      bits(source.bits),
      half_scales(source.half_scales),
      has_zero_points(source.zero_points != nullptr),
      codes(static_cast<std::size_t>(panels * blocks * block_bytes())),
      scales(static_cast<std::size_t>(panels * blocks * kPanelColumns * (half_scales ? 2 : 4))),
      zero_points(has_zero_points ? static_cast<std::size_t>(panels * blocks * kPanelColumns) : 0) {
  for (int64_t panel = 0; panel < panels; ++panel) {
    pack_codes(source, panel);
    pack_scales(source, panel);
  }
}

void PackedWeight::pack_codes(const WeightSource& source, int64_t panel) {
  const int fields = 8 / bits;
  const int64_t columns = std::min<int64_t>(kPanelColumns, n - panel * kPanelColumns);
  uint8_t* line = codes.data() + panel * blocks * block_bytes();
  std::memset(line, 0, static_cast<std::size_t>(blocks * block_bytes()));
  for (int64_t row = 0; row < padded_k(); row += fields * kGroup, line += kLineBytes)
    for (int64_t column = 0; column < columns; ++column)
      for (int field = 0; field < fields; ++field)
        for (int i = 0; i < kGroup; ++i) {
          const int64_t source_row = row + field * kGroup + i;
          if (source_row >= k) continue;
          const int code = source.code(source_row, panel * kPanelColumns + column);
          line[column * kGroup + i] |= static_cast<uint8_t>(code << (field * bits));
        }
}

void PackedWeight::pack_scales(const WeightSource& source, int64_t panel) {
  const int64_t first = panel * blocks * kPanelColumns;
  for (int64_t b = 0; b < blocks; ++b)
    for (int64_t c = 0; c < kPanelColumns; ++c) {
      const int64_t column = panel * kPanelColumns + c;
      const int64_t slot = first + b * kPanelColumns + c;
      const float scale = column < n ? source.scale(b, column) : 0.0f;
      if (half_scales) {
        reinterpret_cast<uint16_t*>(scales.data())[slot] = float_to_half(scale);
      } else {
        reinterpret_cast<float*>(scales.data())[slot] = scale;
      }
      if (has_zero_points)
        zero_points.data()[slot] = static_cast<uint8_t>(column < n ? source.zero_point(b, column) : 0);
    }
}

}  // namespace onnxq::cpu
