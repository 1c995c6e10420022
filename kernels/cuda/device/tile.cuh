// Tile kernels: 9 tokens and more. A CTA multiplies `columns` x `tokens` of the product; a pipeline of
// cp.async stages feeds shared memory; weights are dequantized in registers, straight into the m16
// operand of mma.sync, with the tokens as n8.
//
// The sums of a block stay in one set of accumulators; at the end of a block they are scaled in float32
// and added to the result, so that fp16 rounds the final value only.
#pragma once

#include "codes.cuh"
#include "tile_epilogue.cuh"
#include "tile_stage.cuh"

namespace onnxq::cuda {

struct MidShape {
  static constexpr ONNXQ_ANYWHERE TileShape value(Element e) { return mid_shape(e); }
};
struct WideShape {
  static constexpr ONNXQ_ANYWHERE TileShape value(Element e) { return wide_shape(e); }
};

template <Element E, class Code, class Shape>
class TileWarp {
 public:
  using Loader = StageLoader<E, Code, Shape>;
  static constexpr TileShape kShape = Loader::kShape;
  static constexpr StageLayout kLayout = Loader::kLayout;
  static constexpr int kGroupsOfWarp = kShape.column_groups;
  static constexpr int kTokenTiles = kShape.token_tiles;
  using Sums = float[kGroupsOfWarp][kTokenTiles][4];

  __device__ __forceinline__ TileWarp(const typename Code::Args& args, int first_token)
      : args_(args),
        lane_(threadIdx.x % kLanes),
        block_log2_(args.block_log2),
        depth_tiles_((args.k + kTileDepth - 1) / kTileDepth) {
    const int warp = threadIdx.x / kLanes;
    column_warp_ = warp % kShape.warps_columns;
    token_warp_ = warp / kShape.warps_columns % kShape.warps_tokens;
    depth_warp_ = warp / (kShape.warps_columns * kShape.warps_tokens);
    const int left = args.m - first_token - token_warp_ * kTokenTiles * 8;
    live_tiles_ = left <= 0 ? 0 : (left + 7) / 8;
  }

  // The warp's depth tile of the stage.
  __device__ __forceinline__ void multiply_stage(const unsigned char* stage, int step, Sums& block_sums,
                                                 Sums& sums) const {
    const int tile = step * kShape.warps_depth + depth_warp_;
    if (tile >= depth_tiles_ || live_tiles_ == 0) return;
    if (block_log2_ == 4) {
      multiply_tile<16>(stage, true, block_sums, sums);
    } else if (block_log2_ == 5) {
      multiply_tile<32>(stage, true, block_sums, sums);
    } else {
      // A deep block ends with its last tile; warps that share the depth scale each of their tiles.
      const bool ends = kShape.warps_depth > 1 || ((tile + 1) & ((1 << (block_log2_ - 6)) - 1)) == 0 ||
                        tile + 1 == depth_tiles_;
      multiply_tile<64>(stage, ends, block_sums, sums);
    }
  }

  __device__ __forceinline__ SumPlace place() const {
    return {depth_warp_, token_warp_ * kTokenTiles * 8, column_warp_ * kGroupsOfWarp * kTileColumns};
  }

 private:
  static constexpr int kBits = Code::kBits;
  using Dequantizer = typename Code::template Dequantizer<E>;
  template <int Period>
  using Zeros = typename Code::template Zeros<Period>;

  template <int Period>
  __device__ __forceinline__ void multiply_tile(const unsigned char* stage, bool ends, Sums& block_sums,
                                                Sums& sums) const {
    constexpr int kUnit = narrow_order(E, Period) ? 1 : 2;
    Tile<kBits> codes[kGroupsOfWarp];
    ScaleRow<E, Period> scales[kGroupsOfWarp];
    Zeros<Period> zeros[kGroupsOfWarp];
#pragma unroll
    for (int g = 0; g < kGroupsOfWarp; ++g) {
      const int slot = depth_warp_ * kShape.groups() + column_warp_ * kGroupsOfWarp + g, group = lane_ / 4;
      using Scales = ScaleRow<E, Period>;
      codes[g].read_shared(stage + kLayout.weights + slot * tile_bytes(kBits), lane_);
      scales[g].load_shared(stage + kLayout.scales + slot * Scales::kRowBytes + group * Scales::kBytes);
      zeros[g].load_shared(stage + kLayout.zeros + slot * Zeros<Period>::kRowBytes + group * Zeros<Period>::kBytes);
    }
    const uint32_t tokens = ptx::shared_address(stage + token_row(lane_ / 4));
    const auto after = [&](int steps_done) {
      constexpr int kStepsOfBlock = Period / kStepDepth;
      if (steps_done % kStepsOfBlock != 0 || (steps_done == kSteps && !ends)) return;
      add_scaled<Period>(scales, steps_done / kStepsOfBlock - 1, block_sums, sums);
    };
    unit<Period, 0, kUnit>(codes, zeros, tokens, block_sums);
    if constexpr (kUnit == 1) {
      after(1);
      unit<Period, 1, kUnit>(codes, zeros, tokens, block_sums);
    }
    after(2);
    unit<Period, 2, kUnit>(codes, zeros, tokens, block_sums);
    if constexpr (kUnit == 1) {
      after(3);
      unit<Period, 3, kUnit>(codes, zeros, tokens, block_sums);
    }
    after(4);
  }

  // Byte offset of a token of this warp in the stage.
  __device__ __forceinline__ int token_row(int token) const {
    return (depth_warp_ * kShape.tokens() + token_warp_ * kTokenTiles * 8 + token) * kTokenRowBytes;
  }

  // Steps Step .. Step + Unit - 1 of the tile for all tokens of the warp.
  template <int Period, int Step, int Unit>
  __device__ __forceinline__ void unit(const Tile<kBits> (&codes)[kGroupsOfWarp],
                                       const Zeros<Period> (&zeros)[kGroupsOfWarp], uint32_t tokens,
                                       Sums& block_sums) const {
#pragma unroll
    for (int w = 0; w < Dequantizer::kWeightParts; ++w) {
      uint32_t a[kGroupsOfWarp][Unit][4];
#pragma unroll
      for (int g = 0; g < kGroupsOfWarp; ++g) {
        const Dequantizer dequantizer(args_, zeros[g].zeros(Step * kStepDepth / Period));
        dequantizer.template fragment<Step>(codes[g], w, a[g][0]);
        if constexpr (Unit == 2) dequantizer.template fragment<Step + 1>(codes[g], w, a[g][1]);
      }
      multiply_unit<Step, Unit>(a, kParts<E> - w, tokens, block_sums);
    }
  }

  // One part of the weights with the first `parts` parts of every token.
  template <int Step, int Unit>
  __device__ __forceinline__ void multiply_unit(const uint32_t (&a)[kGroupsOfWarp][Unit][4], int parts,
                                                uint32_t tokens, Sums& block_sums) const {
#pragma unroll
    for (int t = 0; t < kTokenTiles; ++t) {
      if (kShape.trim_tokens && t >= live_tiles_) break;
#pragma unroll
      for (int part = 0; part < parts; ++part) {
        uint32_t b[2 * Unit];
        read_tokens<Step, Unit>(tokens + part * kLayout.token_part_bytes + t * 8 * kTokenRowBytes, b);
#pragma unroll
        for (int s = 0; s < Unit; ++s)
#pragma unroll
          for (int g = 0; g < kGroupsOfWarp; ++g)
            multiply<E>(block_sums[g][t], a[g][s], b[2 * s], b[2 * s + 1]);
      }
    }
  }

  // The lane's activations of a unit: 16 bytes for two steps in the wide order, 8 for one in the narrow.
  template <int Step, int Unit>
  __device__ __forceinline__ void read_tokens(uint32_t row, uint32_t (&b)[2 * Unit]) const {
    const int token = lane_ / 4, quad = lane_ % 4;
    if constexpr (Unit == 2) {
      const uint4 v = ptx::read_shared_16(row + swizzle(token, Step / 2 * 4 + quad) * 16);
      b[0] = v.x;
      b[1] = v.y;
      b[2] = v.z;
      b[3] = v.w;
    } else {
      const uint2 v = ptx::read_shared_8(row + swizzle(token, Step * 2 + quad / 2) * 16 + quad % 2 * 8);
      b[0] = v.x;
      b[1] = v.y;
    }
  }

  template <int Period>
  __device__ __forceinline__ void add_scaled(const ScaleRow<E, Period> (&scales)[kGroupsOfWarp], int block,
                                             Sums& block_sums, Sums& sums) const {
#pragma unroll
    for (int g = 0; g < kGroupsOfWarp; ++g) {
      const float low = scales[g].scale(block, 0), high = scales[g].scale(block, 1);
#pragma unroll
      for (int t = 0; t < kTokenTiles; ++t) {
        if (kShape.trim_tokens && t >= live_tiles_) break;
#pragma unroll
        for (int r = 0; r < 4; ++r) {
          sums[g][t][r] += block_sums[g][t][r] * (r < 2 ? low : high);
          block_sums[g][t][r] = 0.0f;
        }
      }
    }
  }

  const typename Code::Args& args_;
  const int lane_;
  const int block_log2_;
  const int depth_tiles_;
  int column_warp_, token_warp_, depth_warp_;
  int live_tiles_;  // token tiles of this warp that hold tokens < m
};

template <Element E, class Code, class Shape>
__device__ __forceinline__ void tile_product(const typename Code::Args& args) {
  using Warp = TileWarp<E, Code, Shape>;
  constexpr TileShape kShape = Warp::kShape;
  constexpr StageLayout kLayout = Warp::kLayout;
  extern __shared__ __align__(128) unsigned char shared[];

  // Tokens vary fastest: the CTAs that read the same weights run together and meet in L2.
  const int first_token = blockIdx.x * kShape.tokens(), first_group = blockIdx.y * kShape.groups();
  const typename Warp::Loader loader(args, first_group, first_token);
  const Warp warp(args, first_token);
  const int steps = loader.steps();
#pragma unroll 1
  for (int s = 0; s < kLayout.stages - 1; ++s) {
    if (s < steps) loader.load(shared + s * kLayout.bytes, s);
    ptx::copy_async_commit();
  }

  typename Warp::Sums block_sums = {}, sums = {};
  int stage = 0;
  for (int step = 0; step < steps; ++step) {
    ptx::copy_async_wait<kLayout.stages - 2>();
    __syncthreads();  // the stage is visible to all, and nobody still reads the one filled next
    const int next = step + kLayout.stages - 1;
    const int free = stage == 0 ? kLayout.stages - 1 : stage - 1;
    if (next < steps) loader.load(shared + free * kLayout.bytes, next);
    ptx::copy_async_commit();
    warp.multiply_stage(shared + stage * kLayout.bytes, step, block_sums, sums);
    stage = stage + 1 == kLayout.stages ? 0 : stage + 1;
  }

  // No copy is on its way any more (the last groups were empty); the stages become the sums' room.
  __syncthreads();
  store_product<E, kShape.warps_depth>(args, kShape, first_token, first_group * kTileColumns, warp.place(), sums,
                                       reinterpret_cast<float*>(shared));
}

}  // namespace onnxq::cuda
