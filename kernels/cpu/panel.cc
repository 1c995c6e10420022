#include "cpu/panel.h"

#include <cstring>

#include "cpu/pages.h"

namespace onnxq::cpu {
namespace {

// Panels that are packed side by side where codes are read 16 columns at a time: enough for whole cache lines of
// the file, few enough for the translations of the addresses that are written.
constexpr int64_t kPanelsTogether = 16;

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

// What whole vectors do not cover, a block at a time through one code a byte.
void PackedWeight::pack_blocks(const WeightSource& source, BlockRange range) {
  alignas(kCacheLine) uint8_t codes[kMaxBlock * kPanelColumns];
  const int groups = block / kGroup;
  for (int64_t b = range.first_block; b < blocks; ++b)
    for (int64_t panel = range.first_panel; panel < range.end_panel; ++panel) {
      source.read_block(b, panel * kPanelColumns, codes);
      pack_block(low, codes, groups, 0, low.lines.data() + (panel * blocks + b) * low.block_bytes);
      pack_block(high, codes, groups, low.bits, high.lines.data() + (panel * blocks + b) * high.block_bytes);
    }
}

void PackedWeight::pack_codes(const WeightSource& source) {
  populate(low.lines.data(), low.lines.bytes());
  populate(high.lines.data(), high.lines.bytes());
  const int64_t step = source.panels_per_vector();
  const int64_t fast_blocks = source.vector_rows() / block;
  const int64_t fast_panels = fast_blocks == 0 ? 0 : n / (step * kPanelColumns) * step;
  if (fast_panels > 0)
    source.read_lines(fast_panels, {low.lines.data(), blocks * low.block_bytes},
                      {high.lines.data(), blocks * high.block_bytes});
  pack_blocks(source, {0, fast_panels, fast_blocks});
  for (int64_t panel = fast_panels; panel < panels; panel += kPanelsTogether)
    pack_blocks(source, {panel, std::min(panel + kPanelsTogether, panels), 0});
}

namespace {

// What stands beside the blocks (of W's rows, of which a codebook has fewer rows of indices): T [blocks, N] or,
// transposed, [N, blocks], to [panels][blocks][16].
template <class T>
void pack_beside(const WeightSource& source, int64_t blocks, const T* from, T* to) {
  for (int64_t column = 0; column < source.n; column += kPanelColumns) {
    const int64_t columns = std::min<int64_t>(kPanelColumns, source.n - column);
    T* panel = to + column * blocks;
    if (columns < kPanelColumns) std::fill_n(panel, blocks * kPanelColumns, T{0});
    if (source.storage == Storage::kTransposed) {
      for (int64_t c = 0; c < columns; ++c)
        for (int64_t b = 0; b < blocks; ++b) panel[b * kPanelColumns + c] = from[(column + c) * blocks + b];
    } else {
      for (int64_t b = 0; b < blocks; ++b)
        std::copy_n(from + b * source.n + column, columns, panel + b * kPanelColumns);
    }
  }
}

}  // namespace

void PackedWeight::pack_scales(const WeightSource& source) {
  if (half_scales) {
    auto* to = reinterpret_cast<uint16_t*>(scales.data());
    pack_beside(source, blocks, static_cast<const uint16_t*>(source.scales), to);
  } else {
    pack_beside(source, blocks, static_cast<const float*>(source.scales), reinterpret_cast<float*>(scales.data()));
  }
  if (!has_zero_points) return;
  if (source.zero_point_bits == 8) return pack_beside(source, blocks, source.zero_points, zero_points.data());
  uint8_t* to = zero_points.data();
  for (int64_t column = 0; column < panels * kPanelColumns; column += kPanelColumns)
    for (int64_t b = 0; b < blocks; ++b)
      for (int64_t c = column; c < column + kPanelColumns; ++c)
        *to++ = static_cast<uint8_t>(c < n ? source.zero_point(b, c) : 0);
}

}  // namespace onnxq::cpu
