#include "cpu/product.h"

#include <algorithm>
#include <cstring>

namespace onnxq::cpu {
namespace {

// Codes that one task reads at least: a task costs about a microsecond to hand to a thread, which is
// what a core needs for some 16 KB of codes.
constexpr int64_t kTaskBytes = 64 * 1024;
// Floats of result that a task may hold on its stack (32 KB: half of a large L1 cache).
constexpr int64_t kTileFloats = 8 * 1024;
// Panels that share one pass over the rows when there are many rows.
constexpr int64_t kManyRowsPanels = 4;
// From here on a task is cut by rows too.
constexpr int64_t kManyRows = 16;

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Rows of A as the kernels want them. One allocation; every row is prepared by one task.
class Preparation {
 public:
  Preparation(const PackedWeight& weight, Compute compute, Matrix a, int64_t rows)
      : weight_(weight), quantize_(compute == Compute::kInt8) {
    const auto values = static_cast<std::size_t>(rows * weight.padded_k());
    const auto per_block = static_cast<std::size_t>(rows * weight.blocks);
    if (quantize_) {
      codes_ = AlignedBuffer<int8_t>(values);
      scales_ = AlignedBuffer<float>(per_block);
      corrections_ = AlignedBuffer<int32_t>(per_block);
    } else {
      values_ = AlignedBuffer<float>(values);
    }
    if (a.half) widened_ = AlignedBuffer<float>(static_cast<std::size_t>(rows * weight.k));
  }

  void prepare_row(const Kernels& kernels, Matrix a, int64_t row) {
    const float* source = a.half ? widen(kernels, a, row) : static_cast<const float*>(a.data) + row * weight_.k;
    if (quantize_) {
      kernels.quantize_row(weight_, source, codes_.data() + row * weight_.padded_k(),
                           scales_.data() + row * weight_.blocks, corrections_.data() + row * weight_.blocks);
    } else {
      float* out = values_.data() + row * weight_.padded_k();
      std::memcpy(out, source, static_cast<std::size_t>(weight_.k) * sizeof(float));
      std::fill(out + weight_.k, out + weight_.padded_k(), 0.0f);
    }
  }

  PreparedRows rows() const { return {codes_.data(), scales_.data(), corrections_.data(), values_.data()}; }

 private:
  const float* widen(const Kernels& kernels, Matrix a, int64_t row) {
    float* out = widened_.data() + row * weight_.k;
    kernels.widen(static_cast<const uint16_t*>(a.data) + row * weight_.k, weight_.k, out);
    return out;
  }

  const PackedWeight& weight_;
  bool quantize_;
  AlignedBuffer<int8_t> codes_;
  AlignedBuffer<float> scales_;
  AlignedBuffer<int32_t> corrections_;
  AlignedBuffer<float> values_;
  AlignedBuffer<float> widened_;
};

// How Y is cut into tiles of equal shape (the last of each row and column may be smaller).
struct Cut {
  Cut(const PackedWeight& weight, int64_t rows) {
    const int64_t wanted = divide_up(kTaskBytes, std::max<int64_t>(1, weight.panel_bytes() * rows));
    tile_rows = std::min(rows, kTileFloats / (kManyRowsPanels * kPanelColumns));
    const int64_t fit = kTileFloats / (tile_rows * kPanelColumns);
    tile_panels = std::clamp<int64_t>(wanted, std::min(kManyRowsPanels, fit), fit);
    columns = divide_up(weight.panels, tile_panels);
    count = columns * divide_up(rows, tile_rows);
  }

  int64_t tile_rows;
  int64_t tile_panels;
  int64_t columns;  // tiles side by side
  int64_t count;
};

// Rows of Y that are asked for ahead of the row that is stored. They are a page apart or more, so nothing
// but this fetches them early.
constexpr int64_t kRowsAhead = 12;

// Asks for `bytes` of memory that will be written.
void prefetch_for_writing(const char* from, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += static_cast<int64_t>(kCacheLine)) __builtin_prefetch(from + i, 1);
}

// Copies the part of a tile that belongs to Y, converting to float16 where Y is.
void store(const Kernels& kernels, const Tile& tile, const PackedWeight& weight, MutableMatrix y) {
  const int64_t first = tile.panel * kPanelColumns;
  const int64_t columns = std::min(tile.panels * kPanelColumns, weight.n - first);
  const int64_t size = y.half ? 2 : 4;
  for (int64_t r = 0; r < tile.rows; ++r) {
    const float* from = tile.out + r * tile.stride;
    const int64_t to = (tile.row + r) * weight.n + first;
    if (r + kRowsAhead < tile.rows)
      prefetch_for_writing(static_cast<const char*>(y.data) + (to + kRowsAhead * weight.n) * size, columns * size);
    if (y.half) {
      kernels.narrow(from, columns, static_cast<uint16_t*>(y.data) + to);
    } else {
      std::memcpy(static_cast<float*>(y.data) + to, from, static_cast<std::size_t>(columns) * sizeof(float));
    }
  }
}

}  // namespace

void Product::multiply(Matrix a, MutableMatrix y, int64_t rows, const Parallel& parallel,
                       const Kernels& kernels) const {
  if (rows == 0) return;
  Preparation preparation(weight_, compute_, a, rows);
  parallel.each(static_cast<std::size_t>(rows),
                [&](std::size_t row) { preparation.prepare_row(kernels, a, static_cast<int64_t>(row)); });

  const PreparedRows prepared = preparation.rows();
  const auto multiply_tile = compute_ == Compute::kInt8 ? kernels.int8_tile : kernels.float_tile;
  const Cut cut(weight_, rows);
  parallel.each(static_cast<std::size_t>(cut.count), [&](std::size_t index) {
    alignas(kCacheLine) float out[kTileFloats];
    Tile tile;
    tile.row = static_cast<int64_t>(index) / cut.columns * cut.tile_rows;
    tile.panel = static_cast<int64_t>(index) % cut.columns * cut.tile_panels;
    tile.rows = std::min(cut.tile_rows, rows - tile.row);
    tile.panels = std::min(cut.tile_panels, weight_.panels - tile.panel);
    tile.out = out;
    tile.stride = tile.panels * kPanelColumns;
    multiply_tile(weight_, prepared, tile);
    store(kernels, tile, weight_, y);
  });
}

}  // namespace onnxq::cpu
