// PackedGather: rows of the [vocabulary, k] table, dequantized. A table row is a column of the device
// layout, so an embedding and the head tied to it read the same bytes.
//
// One CTA an index. A thread takes what one lane of the matmul kernels would hold of a tile, uses the half
// that belongs to its column, and writes runs of 8 (narrow layout: 4) neighbours.
#pragma once

#include "weights.cuh"

namespace onnxq::cuda {

inline constexpr int kGatherThreads = 128;

template <Element E, int Bits>
class GatherRow {
 public:
  __device__ __forceinline__ GatherRow(const GatherArgs& args, int row)
      : args_(args), column_(row % kTileColumns), column_tile_(row / kTileColumns) {}

  template <bool Narrow>
  __device__ __forceinline__ void store(Storage<E>* to) const {
    const int depth_tiles = (args_.k + kTileDepth - 1) / kTileDepth;
    const unsigned char* tiles =
        static_cast<const unsigned char*>(args_.weights) + int64_t{column_tile_} * depth_tiles * tile_bytes(Bits);
    for (int index = threadIdx.x; index < depth_tiles * 4; index += kGatherThreads) {
      const int tile = index / 4, quad = index % 4;
      Tile<Bits> codes;
      codes.stream(tiles + int64_t{tile} * tile_bytes(Bits), column_ % kGroups * 4 + quad);
      store_runs<Narrow>(codes, tile, quad, to);
    }
  }

 private:
  template <bool Narrow>
  __device__ __forceinline__ void store_runs(const Tile<Bits>& codes, int tile, int quad, Storage<E>* to) const {
    constexpr int kRun = Narrow ? 4 : 8;
#pragma unroll
    for (int run = 0; run < 16 / kRun; ++run) {
      const int depth = tile * kTileDepth + (run * 4 + quad) * kRun;
      float scale;
      int zero;
      look_up(tile, depth, scale, zero);
      float values[kRun];
#pragma unroll
      for (int i = 0; i < kRun; ++i)
        values[i] = scale * static_cast<float>(code(codes, (run * kRun + i) / 4, i % 4 / 2, i % 2) - zero);
      write<kRun>(to + depth, values, args_.k - depth);
    }
  }

  // The column's code at (step, register pair, half).
  __device__ __forceinline__ int code(const Tile<Bits>& codes, int step, int pair, int half) const {
    constexpr int kBase = base_width(Bits), kExtra = extra_width(Bits);
    const int upper = column_ / kGroups;  // odd registers; a register pair never straddles words
    const Field base = field_of(kBase, step, 2 * pair);
    unsigned found = codes.base.word[base.word] >> (base.bit + upper * kBase + 16 * half) & ((1u << kBase) - 1);
    if constexpr (kExtra > 0) {
      const Field extra = field_of(kExtra, step, 2 * pair);
      const unsigned high = codes.extra.word[extra.word] >> (extra.bit + upper * kExtra + 16 * half);
      found |= (high & ((1u << kExtra) - 1)) << kBase;
    }
    return static_cast<int>(found);
  }

  // Scale and zero point of the block that holds row `depth`.
  __device__ __forceinline__ void look_up(int tile, int depth, float& scale, int& zero) const {
    const int in_row_log2 = args_.block_log2 < 6 ? 6 - args_.block_log2 : 0;
    const int row_log2 = args_.block_log2 < 6 ? 6 : args_.block_log2;
    const int64_t row = int64_t{column_tile_} * (((args_.k - 1) >> row_log2) + 1) + ((tile * kTileDepth) >> row_log2);
    const int block = (depth >> args_.block_log2) & ((1 << in_row_log2) - 1);
    const int entry = (((column_ % kGroups) << in_row_log2) + block) * 2 + column_ / kGroups;
    scale = ElementTraits<E>::widen(
        static_cast<const Storage<E>*>(args_.scales)[row * (kTileColumns << in_row_log2) + entry]);
    zero = args_.zeros[row * args_.zero_stride + entry];
  }

  template <int Run>
  __device__ __forceinline__ void write(Storage<E>* to, const float (&values)[Run], int present) const {
    if (args_.aligned_output && present >= Run) {
      if constexpr (E == Element::kFloat) {
#pragma unroll
        for (int i = 0; i < Run; i += 4)
          *reinterpret_cast<float4*>(to + i) = make_float4(values[i], values[i + 1], values[i + 2], values[i + 3]);
      } else {
        const auto pair = [&](int i) {
          return ElementTraits<E>::narrow(values[i]) | uint32_t{ElementTraits<E>::narrow(values[i + 1])} << 16;
        };
        if constexpr (Run == 8) {
          *reinterpret_cast<uint4*>(to) = make_uint4(pair(0), pair(2), pair(4), pair(6));
        } else {
          *reinterpret_cast<uint2*>(to) = make_uint2(pair(0), pair(2));
        }
      }
      return;
    }
#pragma unroll
    for (int i = 0; i < Run; ++i)
      if (i < present) to[i] = ElementTraits<E>::narrow(values[i]);
  }

  const GatherArgs& args_;
  const int column_, column_tile_;
};

template <Element E, int Bits>
__device__ __forceinline__ void gather(const GatherArgs& args) {
  const int64_t at = blockIdx.x;
  int64_t index = args.wide_indices ? static_cast<const int64_t*>(args.indices)[at]
                                    : static_cast<const int32_t*>(args.indices)[at];
  if (index < 0) index += args.vocabulary;  // ONNX: negative indices count from the end
  Storage<E>* to = static_cast<Storage<E>*>(args.output) + at * args.k;
  if (index < 0 || index >= args.vocabulary) {
    // A kernel cannot raise: NaN shows the mistake in every output that depends on it.
    for (int k = threadIdx.x; k < args.k; k += kGatherThreads)
      to[k] = ElementTraits<E>::narrow(__uint_as_float(0x7fc00000u));
    return;
  }
  const GatherRow<E, Bits> row(args, static_cast<int>(index));
  if (E == Element::kFloat || args.block_log2 == 4) {  // narrow_order
    row.template store<true>(to);
  } else {
    row.template store<false>(to);
  }
}

}  // namespace onnxq::cuda
