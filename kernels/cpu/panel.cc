#include "cpu/panel.h"

#include <cstring>

namespace onnxq::cpu {
namespace {

// Packs bits [shift, shift + kBits) of unpacked codes [groups][16][4] into lines. Eight codes at a time:
// fields are smaller than bytes, so shifting a whole word moves none into its neighbour once it is masked.
template <int kBits>
void pack_lines(const uint8_t* codes, int groups, int shift, uint8_t* lines) {
  constexpr int kFields = 8 / kBits;
  constexpr int kWords = kLineBytes / 8;
  constexpr uint64_t kMask = 0x0101010101010101u * ((1u << kBits) - 1);
  for (int g = 0; g < groups; g += kFields, lines += kLineBytes) {
    uint64_t line[kWords] = {};
    const int fields = std::min(kFields, groups - g);
#pragma GCC unroll 8
    for (int f = 0; f < kFields; ++f) {
      if (f >= fields) break;  // 1 bit at block 16
      uint64_t from[kWords];
      std::memcpy(from, codes + (g + f) * kLineBytes, kLineBytes);
      for (int i = 0; i < kWords; ++i) line[i] |= (from[i] >> shift & kMask) << (f * kBits);
    }
    std::memcpy(lines, line, kLineBytes);
  }
}

void pack_block(const PanelStream& stream, const uint8_t* codes, int groups, int shift, uint8_t* lines) {
  switch (stream.bits) {
    case 1: return pack_lines<1>(codes, groups, shift, lines);
    case 2: return pack_lines<2>(codes, groups, shift, lines);
    case 4: return pack_lines<4>(codes, groups, shift, lines);
    case 8: return pack_lines<8>(codes, groups, shift, lines);
    default: return;
  }
}

}  // namespace

PanelStream::PanelStream(int stream_bits, int block, int64_t panel_blocks)
    : bits(stream_bits),
      block_bytes(std::max(kLineBytes, block * kPanelColumns * stream_bits / 8)),
      lines(static_cast<std::size_t>(panel_blocks * block_bytes)) {}

PackedWeight::PackedWeight(const WeightSource& source, int64_t depth, Codes codes)
    : k(depth),
      n(source.n),
      blocks((depth + source.block - 1) / source.block),
      panels((source.n + kPanelColumns - 1) / kPanelColumns),
      block(source.block),
      bits(source.bits()),
      half_scales(source.half_scales),
      has_zero_points(source.zero_points != nullptr),
      scales(static_cast<std::size_t>(panels * blocks * kPanelColumns * (half_scales ? 2 : 4))),
      zero_points(has_zero_points ? static_cast<std::size_t>(panels * blocks * kPanelColumns) : 0) {
  pack_scales(source);
  if (codes == Codes::kIndices) {
    pack_indices(source, source.k);
    return;
  }
  low = PanelStream(source.low_bits, block, panels * blocks);
  if (source.high_bits > 0) high = PanelStream(source.high_bits, block, panels * blocks);
  pack_codes(source);
}

PackedWeight::PackedWeight(const WeightSource& source) : PackedWeight(source, source.k, Codes::kLines) {}

PackedWeight::PackedWeight(const CodebookSource& source)
    : PackedWeight(source.indices, source.indices.k * source.dim,
                   source.dim == 1 && source.indices.bits() <= 4 ? Codes::kLines : Codes::kIndices) {
  const int64_t count = int64_t{source.entries} * source.dim;
  codebook.dim = source.dim;
  const int64_t size = std::max<int64_t>(count, Codebook::kRegisterEntries);
  codebook.values = AlignedBuffer<float>(static_cast<std::size_t>(size));
  std::fill_n(codebook.values.data(), codebook.values.size(), 0.0f);
  for (int64_t i = 0; i < count; ++i) codebook.values.data()[i] = source.value(i);
}

void PackedWeight::pack_indices(const WeightSource& indices, int64_t rows) {
  codebook.indices = AlignedBuffer<uint8_t>(static_cast<std::size_t>(panels * rows * kPanelColumns));
  uint8_t* out = codebook.indices.data();
  for (int64_t panel = 0; panel < panels; ++panel)
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t column = panel * kPanelColumns; column < (panel + 1) * kPanelColumns; ++column)
        *out++ = static_cast<uint8_t>(column < n ? indices.code(row, column) : 0);
}

// Blocks outside, panels inside: the file is read along its rows, in pages that follow each other.
void PackedWeight::pack_codes(const WeightSource& source) {
  alignas(kCacheLine) uint8_t codes[kMaxBlock * kPanelColumns];
  const int groups = block / kGroup;
  for (int64_t b = 0; b < blocks; ++b)
    for (int64_t panel = 0; panel < panels; ++panel) {
      source.read_block(b, panel * kPanelColumns, codes);
      pack_block(low, codes, groups, 0, low.lines.data() + (panel * blocks + b) * low.block_bytes);
      pack_block(high, codes, groups, low.bits, high.lines.data() + (panel * blocks + b) * high.block_bytes);
    }
}

void PackedWeight::pack_scales(const WeightSource& source) {
  const int64_t width = half_scales ? 2 : 4;
  const auto* from = static_cast<const uint8_t*>(source.scales);
  std::memset(scales.data(), 0, scales.bytes());
  for (int64_t column = 0; column < n; ++column)
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t slot = (column / kPanelColumns * blocks + b) * kPanelColumns + column % kPanelColumns;
      std::memcpy(scales.data() + slot * width, from + source.scale_index(b, column) * width,
                  static_cast<std::size_t>(width));
    }
  if (!has_zero_points) return;
  std::memset(zero_points.data(), 0, zero_points.bytes());
  for (int64_t column = 0; column < n; ++column)
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t slot = (column / kPanelColumns * blocks + b) * kPanelColumns + column % kPanelColumns;
      zero_points.data()[slot] = static_cast<uint8_t>(source.zero_point(b, column));
    }
}

}  // namespace onnxq::cpu
