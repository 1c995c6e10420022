// What an activation type means to the kernels: how it is read, multiplied, scaled and written.
//
//   half      the tensor core takes it as it is
//   bfloat16  the same
//   float     split exactly into three bfloat16 parts, 8 + 8 + 8 significant bits, one product each:
//             codes are exact in bfloat16, so nothing is lost beyond float32 sums
#pragma once

#include "../layout.h"
#include "ptx.cuh"

namespace onnxq::cuda {

template <Element E>
struct ElementTraits;

template <>
struct ElementTraits<Element::kHalf> {
  using Storage = uint16_t;
  static constexpr int kParts = 1;
  static __device__ __forceinline__ float widen(uint16_t v) { return ptx::half_to_float(v); }
  static __device__ __forceinline__ uint16_t narrow(float v) { return ptx::float_to_half(v); }
};

template <>
struct ElementTraits<Element::kBFloat16> {
  using Storage = uint16_t;
  static constexpr int kParts = 1;
  static __device__ __forceinline__ float widen(uint16_t v) { return __uint_as_float(uint32_t{v} << 16); }
  static __device__ __forceinline__ uint16_t narrow(float v) { return ptx::float_to_bfloat(v); }
};

template <>
struct ElementTraits<Element::kFloat> {
  using Storage = float;
  static constexpr int kParts = 3;
  static __device__ __forceinline__ float widen(float v) { return v; }
  static __device__ __forceinline__ float narrow(float v) { return v; }
};

template <Element E>
using Storage = typename ElementTraits<E>::Storage;

template <Element E>
inline constexpr int kParts = ElementTraits<E>::kParts;

// accumulator += weights * tokens for one part of the tokens.
template <Element E>
__device__ __forceinline__ void multiply(float (&accumulator)[4], const uint32_t (&weights)[4], uint32_t b0,
                                         uint32_t b1) {
  if constexpr (E == Element::kHalf) {
    ptx::mma_half(accumulator, weights, b0, b1);
  } else {
    ptx::mma_bfloat(accumulator, weights, b0, b1);
  }
}

// Cuts two floats into bfloat16 pairs whose sum is exact: each part keeps the upper half of what is
// left, and the rest is exact in float32 because only low significant bits remain.
__device__ __forceinline__ void split(float first, float second, uint32_t (&parts)[3]) {
#pragma unroll
  for (int p = 0; p < 3; ++p) {
    const uint32_t a = __float_as_uint(first);
    const uint32_t b = __float_as_uint(second);
    parts[p] = ptx::permute(a, b, 0x7632u);  // upper halves of both
    first -= __uint_as_float(a & 0xffff0000u);
    second -= __uint_as_float(b & 0xffff0000u);
  }
}

// Words [part][2 * i] of activations as fragments take them: 2 elements a word.
template <Element E, int Words>
struct Tokens {
  uint32_t word[kParts<E>][Words];
};

// Reads 2 * Words contiguous activations; `from` is aligned to them, at most to 16 bytes.
template <Element E, int Words, int Total>
__device__ __forceinline__ void read_aligned(const Storage<E>* from, Tokens<E, Total>& tokens, int first) {
  static_assert(Words == 2 || Words == 4);
  if constexpr (E == Element::kFloat) {
#pragma unroll
    for (int w = 0; w < Words; w += 2) {
      const float4 v = __ldg(reinterpret_cast<const float4*>(from + 2 * w));
      uint32_t low[3], high[3];
      split(v.x, v.y, low);
      split(v.z, v.w, high);
#pragma unroll
      for (int p = 0; p < 3; ++p) {
        tokens.word[p][first + w] = low[p];
        tokens.word[p][first + w + 1] = high[p];
      }
    }
  } else if constexpr (Words == 4) {
    const uint4 v = __ldg(reinterpret_cast<const uint4*>(from));
    tokens.word[0][first] = v.x;
    tokens.word[0][first + 1] = v.y;
    tokens.word[0][first + 2] = v.z;
    tokens.word[0][first + 3] = v.w;
  } else {
    const uint2 v = __ldg(reinterpret_cast<const uint2*>(from));
    tokens.word[0][first] = v.x;
    tokens.word[0][first + 1] = v.y;
  }
}

// The same with no alignment, and zeros from element `present` on.
template <Element E, int Words, int Total>
__device__ __forceinline__ void read_guarded(const Storage<E>* from, int present, Tokens<E, Total>& tokens,
                                             int first) {
#pragma unroll
  for (int w = 0; w < Words; ++w) {
    const Storage<E> a = 2 * w < present ? from[2 * w] : Storage<E>{};
    const Storage<E> b = 2 * w + 1 < present ? from[2 * w + 1] : Storage<E>{};
    if constexpr (E == Element::kFloat) {
      uint32_t parts[3];
      split(a, b, parts);
#pragma unroll
      for (int p = 0; p < 3; ++p) tokens.word[p][first + w] = parts[p];
    } else {
      tokens.word[0][first + w] = a | uint32_t{b} << 16;
    }
  }
}

}  // namespace onnxq::cuda
