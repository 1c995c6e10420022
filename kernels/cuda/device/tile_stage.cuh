// Fills one stage of a tile kernel's pipeline. Everything but unaligned or float activations goes by
// cp.async; those pass through registers, with every element guarded.
//
// The loops stay rolled up: the addresses of unrolled ones would live beside the accumulators, and the wide
// kernels have no registers to spare.
#pragma once

#include "../tile_shape.h"
#include "codes.cuh"

namespace onnxq::cuda {

template <Element E, class Code, class Shape>
class StageLoader {
 public:
  static constexpr int kBits = Code::kBits;
  static constexpr TileShape kShape = Shape::value(E);
  static constexpr StageLayout kLayout = stage_layout(kShape, E, kBits);

  __device__ __forceinline__ StageLoader(const MatMulArgs& args, int first_group, int first_token)
      : args_(args),
        first_group_(first_group),
        first_token_(first_token),
        depth_tiles_((args.k + kTileDepth - 1) / kTileDepth),
        groups_((args.n + kTileColumns - 1) / kTileColumns),
        scale_rows_(((args.k - 1) >> row_log2()) + 1),
        in_row_log2_(args.block_log2 < 6 ? 6 - args.block_log2 : 0) {}

  __device__ __forceinline__ int steps() const {
    return (depth_tiles_ + kShape.warps_depth - 1) / kShape.warps_depth;
  }

  // Depth tiles step * warps_depth .. into the stage at `stage`.
  __device__ __forceinline__ void load(unsigned char* stage, int step) const {
    const int first_tile = step * kShape.warps_depth;
    load_weights(stage + kLayout.weights, first_tile);
    // A row of one block has 16 entries: 16 bytes of zero points, 32 or 64 of scales.
    constexpr int kScaleLog2 = sizeof(Storage<E>) == 4 ? 2 : 1;
    load_rows(stage + kLayout.scales, first_tile, static_cast<const unsigned char*>(args_.scales),
              in_row_log2_ + kScaleLog2, 16 << (in_row_log2_ + kScaleLog2));
    if constexpr (Code::kZeroPoints)
      load_rows(stage + kLayout.zeros, first_tile, args_.zeros, in_row_log2_, args_.zero_stride);
    if (E != Element::kFloat && args_.aligned_rows) {
      load_tokens_async(stage, first_tile);
    } else {
      load_tokens_guarded(stage, first_tile);
    }
  }

 private:
  static constexpr int kSlots = kShape.warps_depth * kShape.groups();

  __device__ __forceinline__ int row_log2() const { return args_.block_log2 < 6 ? 6 : args_.block_log2; }

  __device__ __forceinline__ void load_weights(unsigned char* to, int first_tile) const {
    constexpr int kTilePieces = tile_bytes(kBits) / 16;
    constexpr int kTotal = kSlots * kTilePieces;
    const unsigned char* weights = static_cast<const unsigned char*>(args_.weights);
#pragma unroll 1
    for (int at = 0; at < kTotal; at += kShape.threads()) {
      const int index = at + threadIdx.x;
      if (kTotal % kShape.threads() != 0 && index >= kTotal) break;
      const int piece = index % kTilePieces, slot = index / kTilePieces;
      const int tile = first_tile + slot / kShape.groups(), group = first_group_ + slot % kShape.groups();
      const bool present = tile < depth_tiles_ && group < groups_;
      const int64_t source = present ? (static_cast<int64_t>(group) * depth_tiles_ + tile) * kTilePieces + piece : 0;
      ptx::copy_async_16(ptx::shared_address(to + index * 16), weights + source * 16, present);
    }
  }

  // One row of 2^pieces_log2 x 16 bytes, of scales or zero points, for every (depth tile, column group).
  __device__ __forceinline__ void load_rows(unsigned char* to, int first_tile, const unsigned char* table,
                                            int pieces_log2, int stride) const {
    for (int index = threadIdx.x; index < kSlots << pieces_log2; index += kShape.threads()) {
      const int slot = index >> pieces_log2, piece = index & ((1 << pieces_log2) - 1);
      const int tile = first_tile + slot / kShape.groups(), group = first_group_ + slot % kShape.groups();
      const bool present = tile < depth_tiles_ && group < groups_;
      const int row = present ? group * scale_rows_ + ((tile * kTileDepth) >> row_log2()) : 0;
      ptx::copy_async_16(ptx::shared_address(to + index * 16),
                         table + static_cast<int64_t>(row) * stride + piece * 16, present);
    }
  }

  // `Elements` neighbours of a token, one thread's share.
  template <int Elements>
  struct TokenPiece {
    int token;  // of the matrix
    int depth;
    int offset;  // in a part of the stage

    __device__ __forceinline__ TokenPiece(int index, int first_token, int first_tile) {
      constexpr int kInRow = kTileDepth / Elements;
      const int within = index % kInRow, row = index / kInRow;  // row: [depth tile][token]
      const int in_tile = row % kShape.tokens(), byte = within * Elements * 2;
      token = first_token + in_tile;
      depth = (first_tile + row / kShape.tokens()) * kTileDepth + within * Elements;
      offset = row * kTokenRowBytes + swizzle(in_tile, byte / 16) * 16 + byte % 16;
    }
  };
  static constexpr int kTokenElements = kShape.warps_depth * kShape.tokens() * kTileDepth;

  __device__ __forceinline__ void load_tokens_async(unsigned char* to, int first_tile) const {
    static_assert(kTokenElements / 8 % kShape.threads() == 0);
    const Storage<E>* tokens = static_cast<const Storage<E>*>(args_.activations);
#pragma unroll 1
    for (int at = 0; at < kTokenElements / 8; at += kShape.threads()) {
      const TokenPiece<8> p(at + threadIdx.x, first_token_, first_tile);
      // Aligned rows are whole pieces, so a piece is inside k or beyond it.
      const bool present = p.token < args_.m && p.depth < args_.k;
      const int64_t source = present ? static_cast<int64_t>(p.token) * args_.k + p.depth : 0;
      ptx::copy_async_16(ptx::shared_address(to + p.offset), tokens + source, present);
    }
  }

  // 16 bytes of float a thread when all are there; otherwise element by element.
  __device__ __forceinline__ void load_tokens_guarded(unsigned char* to, int first_tile) const {
    for (int index = threadIdx.x; index < kTokenElements / 4; index += kShape.threads()) {
      const TokenPiece<4> p(index, first_token_, first_tile);
      const bool present = p.token < args_.m;
      const Storage<E>* from = static_cast<const Storage<E>*>(args_.activations) +
                               (present ? static_cast<int64_t>(p.token) * args_.k : 0) + p.depth;
      Tokens<E, 2> piece;
      if (E == Element::kFloat && args_.aligned_rows && present && p.depth + 4 <= args_.k) {
        read_aligned<E, 2>(from, piece, 0);
      } else {
        read_guarded<E, 2>(from, present ? args_.k - p.depth : 0, piece, 0);
      }
#pragma unroll
      for (int part = 0; part < kParts<E>; ++part)
        *reinterpret_cast<uint2*>(to + part * kLayout.token_part_bytes + p.offset) =
            make_uint2(piece.word[part][0], piece.word[part][1]);
    }
  }

  const MatMulArgs& args_;
  const int first_group_;
  const int first_token_;
  const int depth_tiles_;
  const int groups_;
  const int scale_rows_;
  const int in_row_log2_;  // log2 of the blocks in a scale row
};

}  // namespace onnxq::cuda
