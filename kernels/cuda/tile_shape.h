// Sizes of the tile kernels (device/tile.cuh), shared by the kernels and by the host that launches them.
#pragma once

#include "layout.h"

namespace onnxq::cuda {

// sm_86, sm_89 and sm_120 let a CTA have 99 KiB of shared memory; the other targets have more.
inline constexpr int kSharedLimit = 99 * 1024;
inline constexpr int kMaxStages = 4;

// How a CTA's warps share its work. A warp makes `column_groups` x 16 columns of `token_tiles` x 8
// tokens; `warps_depth` warps split the depth of a stage and add their sums at the end.
struct TileShape {
  int warps_columns;
  int warps_tokens;
  int warps_depth;
  int column_groups;
  int token_tiles;
  bool trim_tokens;  // skip token tiles beyond m: worth a branch where m is small

  ONNXQ_ANYWHERE constexpr int warps() const { return warps_columns * warps_tokens * warps_depth; }
  ONNXQ_ANYWHERE constexpr int threads() const { return warps() * kLanes; }
  ONNXQ_ANYWHERE constexpr int groups() const { return warps_columns * column_groups; }
  ONNXQ_ANYWHERE constexpr int columns() const { return groups() * kTileColumns; }
  ONNXQ_ANYWHERE constexpr int tokens() const { return warps_tokens * token_tiles * 8; }
  ONNXQ_ANYWHERE constexpr int depth() const { return warps_depth * kTileDepth; }
};

// 9..64 tokens: narrow CTAs so that small matrices fill the GPU, 4 warps along the depth so that each CTA
// still has 12 KiB of weights on their way.
ONNXQ_ANYWHERE constexpr TileShape mid_shape(Element e) {
  return {2, 1, 4, 1, e == Element::kFloat ? 2 : 4, true};
}

// From 64 tokens on: 128 columns x 128 tokens, each warp 32 x 64. Float tokens are three times as large
// in shared memory, so there are half as many.
ONNXQ_ANYWHERE constexpr TileShape wide_shape(Element e) {
  return {4, 2, 1, 2, e == Element::kFloat ? 4 : 8, false};
}

// One stage of the pipeline in shared memory: tokens, weights, scales, zero points, in this order.
//
//   tokens   [part][depth tile][token] 128 bytes: 64 depths, 16-byte pieces swizzled (`swizzle`)
//   weights  [depth tile][column group] tiles of layout.h
//   scales   [depth tile][column group] one scale row each, densely, whatever the rows' size
//   zeros    the same
struct StageLayout {
  int token_part_bytes;
  int weights;
  int scales;
  int zeros;
  int bytes;
  int stages;
  int shared_bytes;  // of the whole CTA: the stages, later reused for the sums
};

inline constexpr int kTokenRowBytes = 2 * kTileDepth;
inline constexpr int kLargestRow = kTileColumns * kTileDepth / kNarrowBlock;  // entries of a scale row

// Row stride of the sums [depth warp][token][column]: = 4 modulo 16 words, so that a warp's fragment (8
// columns x 4 token pairs) meets 32 different banks.
ONNXQ_ANYWHERE constexpr int sum_stride(const TileShape& shape) { return shape.columns() + 4; }

ONNXQ_ANYWHERE constexpr StageLayout stage_layout(const TileShape& shape, Element e, int bits) {
  const int parts = e == Element::kFloat ? 3 : 1, slots = shape.warps_depth * shape.groups();
  StageLayout l{};
  l.token_part_bytes = shape.warps_depth * shape.tokens() * kTokenRowBytes;
  l.weights = parts * l.token_part_bytes;
  l.scales = l.weights + slots * tile_bytes(bits);
  l.zeros = l.scales + slots * kLargestRow * element_bytes(e);
  l.bytes = l.zeros + slots * kLargestRow;
  l.stages = kSharedLimit / l.bytes < kMaxStages ? kSharedLimit / l.bytes : kMaxStages;
  const int sums = shape.warps_depth * shape.tokens() * sum_stride(shape) * 4;
  l.shared_bytes = l.stages * l.bytes > sums ? l.stages * l.bytes : sums;
  return l;
}

// Which 16-byte piece of a token's row holds piece `piece`: readers take 8 tokens x 4 pieces (or 4 tokens x
// 4 half pieces) at once, and this spreads them over all banks.
ONNXQ_ANYWHERE constexpr int swizzle(int token, int piece) { return piece ^ ((token & 1) << 2 | (token & 2)); }

static_assert(mid_shape(Element::kHalf).threads() == 256 && mid_shape(Element::kHalf).tokens() == 32);
static_assert(wide_shape(Element::kHalf).columns() == 128 && wide_shape(Element::kHalf).tokens() == 128);
static_assert(stage_layout(mid_shape(Element::kHalf), Element::kHalf, 4).stages == 4);
static_assert(stage_layout(wide_shape(Element::kHalf), Element::kHalf, 4).stages == 4);
static_assert(stage_layout(wide_shape(Element::kFloat), Element::kFloat, 8).stages >= 2);
static_assert(stage_layout(mid_shape(Element::kFloat), Element::kFloat, 8).stages >= 2);
static_assert(stage_layout(wide_shape(Element::kHalf), Element::kHalf, 8).shared_bytes <= kSharedLimit);
static_assert(sum_stride(mid_shape(Element::kHalf)) % 16 == 4 && sum_stride(wide_shape(Element::kHalf)) % 16 == 4);

}  // namespace onnxq::cuda
