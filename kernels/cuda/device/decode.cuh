// Decode: up to 8 tokens. Bound by reading the weights once, so nothing is staged in shared memory.
//
// One CTA makes 16 columns. Its 8 warps share K: a warp takes every eighth chunk of 128 rows, keeps
// two chunks of weights on their way in registers, multiplies with the weights as the m16 operand
// (tokens fill n8), and at the end the warps' sums meet in shared memory.
//
// Whole chunks of aligned activations take the fast loop. What is left of K, or all of it when rows
// of activations are not 16-byte aligned, goes tile by tile through `finish`, which guards each read.
#pragma once

#include "codes.cuh"

namespace onnxq::cuda {

struct Decode {
  static constexpr int kWarps = 8;
  static constexpr int kThreads = kWarps * kLanes;
  static constexpr int kTokens = 8;
  static constexpr int kChunkTiles = 2;
  static constexpr int kChunkDepth = kChunkTiles * kTileDepth;
  static constexpr int kAhead = 2;  // chunks on their way per warp
};

template <Element E, class Code, int Period>
class DecodeWarp {
 public:
  __device__ __forceinline__ DecodeWarp(const typename Code::Args& args, int column_tile)
      : args_(args),
        lane_(threadIdx.x % kLanes),
        tiles_((args.k + kTileDepth - 1) / kTileDepth) {
    const auto at = [](const void* p) { return static_cast<const unsigned char*>(p); };
    const int64_t row = static_cast<int64_t>(column_tile) * (row_of(args.k - 1) + 1);
    const int group = lane_ / 4;
    weights_ = at(args.weights) + static_cast<int64_t>(column_tile) * tiles_ * tile_bytes(kBits);
    scales_ = ptx::keep(at(args.scales) + row * Scales::kRowBytes + group * Scales::kBytes);
    zeros_ = ptx::keep(args.zeros + row * args.zero_stride + group * Zeros::kBytes);
    // Lanes of tokens beyond m read token 0 again: same sectors, and their columns are never stored.
    const int token = group < args.m ? group : 0;
    tokens_ = static_cast<const Storage<E>*>(args.activations) + static_cast<int64_t>(token) * args.k;
  }

  // sum[r]: columns lane/4 + 8 * (r / 2), tokens lane%4 * 2 + r % 2.
  __device__ __forceinline__ void run(int warp, float (&sum)[4]) const {
    const int chunks = args_.aligned_rows ? args_.k / Decode::kChunkDepth : 0;
    // Where the next group of kAhead chunks lies; the offsets inside a group are constants.
    const unsigned char* weights = ptx::keep(tile_at(warp * Decode::kChunkTiles));
    const unsigned char* scales = scales_;
    const uint8_t* zeros = zeros_;
    if constexpr (!kDeep) {
      scales = ptx::keep(scales + warp * Decode::kChunkTiles * Scales::kRowBytes);
      zeros = ptx::keep(zeros + warp * Decode::kChunkTiles * Zeros::kRowBytes);
    }
    const Storage<E>* tokens = ptx::keep(tokens_ + warp * Decode::kChunkDepth + lane_ % 4 * kRun);
    Chunk ahead[Decode::kAhead];
#pragma unroll
    for (int d = 0; d < Decode::kAhead; ++d) {
      const int chunk = warp + d * Decode::kWarps;
      if (chunk < chunks) fetch({weights, scales, zeros}, d, chunk, ahead[d]);
    }
    for (int base = warp; base < chunks; base += Decode::kWarps * Decode::kAhead) {
      weights += Decode::kAhead * kWeightStride;
      if constexpr (!kDeep) {
        scales += Decode::kAhead * kScaleStride;
        zeros += Decode::kAhead * kZeroStride;
      }
#pragma unroll
      for (int d = 0; d < Decode::kAhead; ++d) {
        const int chunk = base + d * Decode::kWarps;
        if (chunk < chunks) {
          consume(tokens + d * kTokenStride, ahead[d], sum);
          const int next = chunk + Decode::kWarps * Decode::kAhead;
          if (next < chunks) fetch({weights, scales, zeros}, d, next, ahead[d]);
        }
      }
      tokens += Decode::kAhead * kTokenStride;
    }
    for (int tile = chunks * Decode::kChunkTiles + warp; tile < tiles_; tile += Decode::kWarps) finish(tile, sum);
  }

 private:
  static constexpr int kBits = Code::kBits;
  using Scales = ScaleRow<E, Period>;
  using Zeros = typename Code::template Zeros<Period>;
  using Dequantizer = typename Code::template Dequantizer<E>;
  static constexpr bool kNarrow = narrow_order(E, Period);
  static constexpr bool kDeep = Period > kTileDepth;          // one scale for the whole chunk
  static constexpr int kRows = kDeep ? 1 : Decode::kChunkTiles;  // scale rows a chunk needs
  static constexpr int kTileWords = 8;                        // 16 activations of a lane
  static constexpr int kRun = kNarrow ? 4 : 8;                // neighbours in the weights' order
  // From a warp's chunk to its next one.
  static constexpr int kWeightStride = Decode::kWarps * Decode::kChunkTiles * tile_bytes(kBits);
  static constexpr int kTokenStride = Decode::kWarps * Decode::kChunkDepth;
  // The same where a scale row is a tile (not kDeep).
  static constexpr int kScaleStride = Decode::kWarps * Decode::kChunkTiles * Scales::kRowBytes;
  static constexpr int kZeroStride = Decode::kWarps * Decode::kChunkTiles * Zeros::kRowBytes;

  struct Chunk {
    Tile<kBits> tile[Decode::kChunkTiles];
    Scales scales[kRows];
    Zeros zeros[kRows];
  };

  // Where a warp's next group of chunks lies.
  struct Next {
    const unsigned char* weights;
    const unsigned char* scales;
    const uint8_t* zeros;
  };

  // The scale row of a weight row.
  __device__ __forceinline__ unsigned row_of(int depth) const {
    return static_cast<unsigned>(depth) >> (Period < kTileDepth ? 6 : args_.block_log2);
  }
  __device__ __forceinline__ const unsigned char* tile_at(int tile) const {
    return weights_ + static_cast<int64_t>(tile) * tile_bytes(kBits);
  }

  __device__ __forceinline__ void fetch_scales(int tile, Scales& scales, Zeros& zeros) const {
    const unsigned row = row_of(tile * kTileDepth);
    scales.load(scales_ + uint64_t{row} * Scales::kRowBytes);
    zeros.load(zeros_ + uint64_t{row} * static_cast<unsigned>(args_.zero_stride));
  }

  // Chunk `d` of the group, the warp's `chunk`. A scale row that is a tile lies at a constant offset; a deep block's
  // row has to be worked out.
  __device__ __forceinline__ void fetch(const Next& next, int d, int chunk, Chunk& to) const {
#pragma unroll
    for (int i = 0; i < Decode::kChunkTiles; ++i)
      to.tile[i].stream(next.weights + d * kWeightStride + i * tile_bytes(kBits), lane_);
    if constexpr (kDeep) {
      fetch_scales(chunk * Decode::kChunkTiles, to.scales[0], to.zeros[0]);
    } else {
#pragma unroll
      for (int i = 0; i < Decode::kChunkTiles; ++i) {
        to.scales[i].load(next.scales + d * kScaleStride + i * Scales::kRowBytes);
        to.zeros[i].load(next.zeros + d * kZeroStride + i * Zeros::kRowBytes);
      }
    }
  }

  __device__ __forceinline__ Tokens<E, kTileWords> read_tokens(const Storage<E>* from) const {
    Tokens<E, kTileWords> tokens;
#pragma unroll
    for (int i = 0; i < 16 / kRun; ++i)
      read_aligned<E, kRun / 2>(from + i * 4 * kRun, tokens, i * kRun / 2);
    return tokens;
  }

  __device__ __forceinline__ Tokens<E, kTileWords> read_tokens_guarded(int tile) const {
    Tokens<E, kTileWords> tokens;
#pragma unroll
    for (int i = 0; i < 16 / kRun; ++i) {
      const int depth = tile * kTileDepth + (i * 4 + lane_ % 4) * kRun;
      read_guarded<E, kRun / 2>(tokens_ + depth, args_.k - depth, tokens, i * kRun / 2);
    }
    return tokens;
  }

  __device__ __forceinline__ static void add_scaled(const Scales& scales, int block, float (&block_sum)[4],
                                                    float (&sum)[4]) {
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      sum[r] += block_sum[r] * scales.scale(block, r / 2);
      block_sum[r] = 0.0f;
    }
  }

  template <int Step>
  __device__ __forceinline__ static void step(const Dequantizer& dequantizer, const Tile<kBits>& tile,
                                              const Tokens<E, kTileWords>& tokens, float (&block_sum)[4]) {
#pragma unroll
    for (int w = 0; w < Dequantizer::kWeightParts; ++w) {
      uint32_t a[4];
      dequantizer.template fragment<Step>(tile, w, a);
#pragma unroll
      for (int p = 0; p < kParts<E> - w; ++p)
        multiply<E>(block_sum, a, tokens.word[p][2 * Step], tokens.word[p][2 * Step + 1]);
    }
  }

  // One tile; its sums reach `sum` at every end of a block, and at its own end unless `keep`.
  __device__ __forceinline__ void tile_steps(const Tile<kBits>& tile, const Scales& scales, const Zeros& zeros,
                                             const Tokens<E, kTileWords>& tokens, float (&block_sum)[4],
                                             float (&sum)[4], bool keep) const {
    constexpr int kPerBlock = Period < kTileDepth ? Period / kStepDepth : kSteps;
    Dequantizer dequantizer(args_, zeros.zeros(0));
    const auto after = [&](int done) {
      if (done % kPerBlock != 0 || (done == kSteps && keep)) return;
      const int block = done / kPerBlock - 1;
      add_scaled(scales, block, block_sum, sum);
      if (done < kSteps) dequantizer.next_block(zeros.zeros(block + 1));
    };
    step<0>(dequantizer, tile, tokens, block_sum);
    after(1);
    step<1>(dequantizer, tile, tokens, block_sum);
    after(2);
    step<2>(dequantizer, tile, tokens, block_sum);
    after(3);
    step<3>(dequantizer, tile, tokens, block_sum);
    after(4);
  }

  __device__ __forceinline__ void consume(const Storage<E>* at, const Chunk& from, float (&sum)[4]) const {
    float block_sum[4] = {};
#pragma unroll
    for (int i = 0; i < Decode::kChunkTiles; ++i) {
      const Tokens<E, kTileWords> tokens = read_tokens(at + i * kTileDepth);
      const int row = kDeep ? 0 : i;
      tile_steps(from.tile[i], from.scales[row], from.zeros[row], tokens, block_sum, sum,
                 kDeep && i + 1 < Decode::kChunkTiles);
    }
  }

  __device__ __forceinline__ void finish(int tile, float (&sum)[4]) const {
    Tile<kBits> codes;
    codes.stream(tile_at(tile), lane_);
    Scales scales;
    Zeros zeros;
    fetch_scales(tile, scales, zeros);
    const Tokens<E, kTileWords> tokens = read_tokens_guarded(tile);
    float block_sum[4] = {};
    tile_steps(codes, scales, zeros, tokens, block_sum, sum, false);
  }

  const typename Code::Args& args_;
  const int lane_;
  const int tiles_;  // along K
  const unsigned char* weights_;
  const unsigned char* scales_;
  const uint8_t* zeros_;
  const Storage<E>* tokens_;
};

// Where a (token, column) sum waits in shared memory. The writers of a warp hold 8 columns x every
// second token, its readers 16 columns x 2 tokens; turning each pair of tokens by 8 words gives both
// 32 different banks.
__device__ __forceinline__ int decode_slot(int token, int column) {
  return token / 2 * 32 + ((token % 2 * 16 + column + token / 2 * 8) & 31);
}

template <Element E, class Code, int Period>
__device__ __forceinline__ void decode(const typename Code::Args& args) {
  constexpr int kSums = Decode::kTokens * kTileColumns;
  __shared__ float sums[Decode::kWarps][kSums];
  const int warp = threadIdx.x / kLanes, lane = threadIdx.x % kLanes;

  float sum[4] = {};
  DecodeWarp<E, Code, Period>(args, blockIdx.x).run(warp, sum);
#pragma unroll
  for (int r = 0; r < 4; ++r) sums[warp][decode_slot(lane % 4 * 2 + r % 2, lane / 4 + r / 2 * 8)] = sum[r];
  __syncthreads();

  const int token = threadIdx.x / kTileColumns, within = threadIdx.x % kTileColumns;
  const int column = blockIdx.x * kTileColumns + within;
  if (token >= args.m || column >= args.n || token >= Decode::kTokens) return;
  float total = 0.0f;
#pragma unroll
  for (int w = 0; w < Decode::kWarps; ++w) total += sums[w][decode_slot(token, within)];
  static_cast<Storage<E>*>(args.output)[static_cast<int64_t>(token) * args.n + column] =
      ElementTraits<E>::narrow(total);
}

}  // namespace onnxq::cuda
