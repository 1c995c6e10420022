// One row of the scale table, for a lane: the scales (and zero points) of its two columns in every
// block of a tile, or of the one block that is at least a tile deep.
#pragma once

#include "../layout.h"
#include "elements.cuh"

namespace onnxq::cuda {

// N 32-bit words from an address aligned to them (to 16 bytes at most).
template <int Words, class Read16, class Read8, class Read4>
__device__ __forceinline__ void read_words(uint32_t (&to)[Words], Read16 read_16, Read8 read_8, Read4 read_4) {
  if constexpr (Words % 4 == 0) {
#pragma unroll
    for (int w = 0; w < Words; w += 4) {
      const uint4 v = read_16(w);
      to[w] = v.x;
      to[w + 1] = v.y;
      to[w + 2] = v.z;
      to[w + 3] = v.w;
    }
  } else if constexpr (Words == 2) {
    const uint2 v = read_8(0);
    to[0] = v.x;
    to[1] = v.y;
  } else {
    to[0] = read_4(0);
  }
}

template <int Words>
__device__ __forceinline__ void read_global(const unsigned char* from, uint32_t (&to)[Words]) {
  read_words<Words>(
      to, [&](int w) { return __ldg(reinterpret_cast<const uint4*>(from + 4 * w)); },
      [&](int) { return __ldg(reinterpret_cast<const uint2*>(from)); },
      [&](int) { return __ldg(reinterpret_cast<const uint32_t*>(from)); });
}

template <int Words>
__device__ __forceinline__ void read_shared(const unsigned char* from, uint32_t (&to)[Words]) {
  read_words<Words>(
      to, [&](int w) { return *reinterpret_cast<const uint4*>(from + 4 * w); },
      [&](int) { return *reinterpret_cast<const uint2*>(from); },
      [&](int) { return *reinterpret_cast<const uint32_t*>(from); });
}

// `Period` is the distance between scales along K: the block size up to a tile, or more.
template <Element E, int Period>
struct ScaleRow {
  static constexpr int kBlocks = blocks_in_row(Period);
  static constexpr int kBytes = 2 * static_cast<int>(sizeof(Storage<E>)) * kBlocks;  // of one lane group
  static constexpr int kRowBytes = kGroups * kBytes;

  uint32_t word[kBytes / 4];

  // `from` is the lane group's place in the row; its four lanes read the same bytes.
  __device__ __forceinline__ void load(const unsigned char* from) { read_global<kBytes / 4>(from, word); }
  __device__ __forceinline__ void load_shared(const unsigned char* from) { read_shared<kBytes / 4>(from, word); }

  // The scale of column `group + 8 * upper` in the row's block `block`.
  __device__ __forceinline__ float scale(int block, int upper) const {
    if constexpr (E == Element::kFloat) return __uint_as_float(word[2 * block + upper]);
    if constexpr (E == Element::kBFloat16)
      return __uint_as_float(upper ? word[block] & 0xffff0000u : word[block] << 16);
    return ElementTraits<E>::widen(static_cast<Storage<E>>(upper ? word[block] >> 16 : word[block]));
  }
};

template <int Period>
struct ZeroRow {
  static constexpr int kBlocks = blocks_in_row(Period);
  static constexpr int kBytes = 2 * kBlocks;
  static constexpr int kRowBytes = kGroups * kBytes;

  uint32_t word[kBlocks > 1 ? kBlocks / 2 : 1];

  __device__ __forceinline__ void load(const unsigned char* from) {
    if constexpr (kBlocks == 1) {
      word[0] = __ldg(reinterpret_cast<const uint16_t*>(from));
    } else {
      read_global<kBytes / 4>(from, word);
    }
  }
  __device__ __forceinline__ void load_shared(const unsigned char* from) {
    if constexpr (kBlocks == 1) {
      word[0] = *reinterpret_cast<const uint16_t*>(from);
    } else {
      read_shared<kBytes / 4>(from, word);
    }
  }
  // Bytes 0 and 1: the zero points of columns `group` and `group + 8`.
  __device__ __forceinline__ uint32_t zeros(int block) const { return word[block / 2] >> (block % 2 * 16); }
};

// Stands for a zero row where every zero point is the same, or codes have none: nothing is read.
template <int Period>
struct ConstantZeroRow {
  static constexpr int kBytes = ZeroRow<Period>::kBytes;
  static constexpr int kRowBytes = ZeroRow<Period>::kRowBytes;

  __device__ __forceinline__ void load(const unsigned char*) {}
  __device__ __forceinline__ void load_shared(const unsigned char*) {}
  __device__ __forceinline__ uint32_t zeros(int) const { return 0; }
};

}  // namespace onnxq::cuda
