// The end of a tile kernel: sums of all warps meet in shared memory, and go out 4 columns a thread.
#pragma once

#include "../tile_shape.h"
#include "elements.cuh"

namespace onnxq::cuda {

// Where a warp's sums lie in the CTA's [depth warp][token][column].
struct SumPlace {
  int depth_warp;
  int token;
  int column;
};

template <Element E>
__device__ __forceinline__ void store_four(Storage<E>* to, const float (&v)[4], int present, bool aligned) {
  if (aligned && present >= 4) {
    if constexpr (E == Element::kFloat) {
      *reinterpret_cast<float4*>(to) = make_float4(v[0], v[1], v[2], v[3]);
    } else {
      const auto pair = [&](int i) {
        return ElementTraits<E>::narrow(v[i]) | uint32_t{ElementTraits<E>::narrow(v[i + 1])} << 16;
      };
      *reinterpret_cast<uint2*>(to) = make_uint2(pair(0), pair(2));
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < 4; ++i)
    if (i < present) to[i] = ElementTraits<E>::narrow(v[i]);
}

template <Element E, int WarpsDepth, int Groups, int TokenTiles>
__device__ __forceinline__ void store_product(const MatMulArgs& args, const TileShape& shape, int first_token,
                                              int first_column, const SumPlace& place,
                                              const float (&sums)[Groups][TokenTiles][4], float* room) {
  const int stride = sum_stride(shape), lane = threadIdx.x % kLanes;
  float* mine = room + (place.depth_warp * shape.tokens() + place.token) * stride + place.column;
#pragma unroll
  for (int g = 0; g < Groups; ++g)
#pragma unroll
    for (int t = 0; t < TokenTiles; ++t)
#pragma unroll
      for (int r = 0; r < 4; ++r)
        mine[(t * 8 + lane % 4 * 2 + r % 2) * stride + g * kTileColumns + lane / 4 + r / 2 * 8] = sums[g][t][r];
  __syncthreads();

  const int quads = shape.columns() / 4;
  for (int index = threadIdx.x; index < shape.tokens() * quads; index += shape.threads()) {
    const int token = index / quads, column = index % quads * 4;
    const int present = args.n - first_column - column;
    if (first_token + token >= args.m || present <= 0) continue;
    float total[4] = {};
#pragma unroll
    for (int d = 0; d < WarpsDepth; ++d) {
      const float4 v = *reinterpret_cast<const float4*>(room + (d * shape.tokens() + token) * stride + column);
      total[0] += v.x;
      total[1] += v.y;
      total[2] += v.z;
      total[3] += v.w;
    }
    Storage<E>* to = static_cast<Storage<E>*>(args.output) + static_cast<int64_t>(first_token + token) * args.n +
                     first_column + column;
    store_four<E>(to, total, present, args.aligned_output);
  }
}

}  // namespace onnxq::cuda
