// Codes of one tile in a lane's registers, and what turns them into tensor-core operands.
//
// fp16 holds every integer up to 2048 and bfloat16 every one up to 256, so code - zero is exact in
// both. The codes are lifted by OR-ing them into the mantissa of a power of two ("magic"):
//
//   fp16      0x6400 | c            = 1024 + c        for c < 1024
//             0x6400 | c << p       = 1024 + c * 2^p, so fma(x, 2^-p, -(1024 * 2^-p + zero)) = c - zero
//   bfloat16  0x4300 | c            = 128 + c         for c < 128
//   float32   0x4b000000 | c        = 8388608 + c     for 8-bit codes on their way to bfloat16
//
// Subtraction and fma are exact here, so the rounding of their results never acts.
#pragma once

#include "../layout.h"
#include "elements.cuh"

namespace onnxq::cuda {

// A lane's words of one plane.
template <int Width>
struct Plane {
  static constexpr int kWords = Width;
  uint32_t word[Width > 0 ? Width : 1];

  // From global memory, past L1; `plane` is the plane's first byte.
  __device__ __forceinline__ void stream(const unsigned char* plane, int lane) {
    if constexpr (Width == 1) {
      word[0] = ptx::load_stream_4(plane + lane * 4);
    } else if constexpr (Width == 2) {
      const uint2 v = ptx::load_stream_8(plane + lane * 8);
      word[0] = v.x;
      word[1] = v.y;
    } else if constexpr (Width >= 4) {
#pragma unroll
      for (int w = 0; w < Width; w += 4) set(w, ptx::load_stream_16(plane + plane_word_offset(Width, lane, w)));
    }
  }

  __device__ __forceinline__ void read_shared(const unsigned char* plane, int lane) {
    if constexpr (Width == 1) {
      word[0] = *reinterpret_cast<const uint32_t*>(plane + lane * 4);
    } else if constexpr (Width == 2) {
      const uint2 v = *reinterpret_cast<const uint2*>(plane + lane * 8);
      word[0] = v.x;
      word[1] = v.y;
    } else if constexpr (Width >= 4) {
#pragma unroll
      for (int w = 0; w < Width; w += 4)
        set(w, *reinterpret_cast<const uint4*>(plane + plane_word_offset(Width, lane, w)));
    }
  }

 private:
  __device__ __forceinline__ void set(int w, const uint4& v) {
    word[w] = v.x;
    word[w + 1] = v.y;
    word[w + 2] = v.z;
    word[w + 3] = v.w;
  }
};

template <int Bits>
struct Tile {
  Plane<base_width(Bits)> base;
  Plane<extra_width(Bits)> extra;

  __device__ __forceinline__ void stream(const unsigned char* tile, int lane) {
    base.stream(tile, lane);
    extra.stream(tile + tile_bytes(base_width(Bits)), lane);
  }
  __device__ __forceinline__ void read_shared(const unsigned char* tile, int lane) {
    base.read_shared(tile, lane);
    extra.read_shared(tile + tile_bytes(base_width(Bits)), lane);
  }
};

// The byte `index` of `word` in the low byte of both halves, with `fill` in the high bytes.
template <int Index>
__device__ __forceinline__ uint32_t spread_byte(uint32_t word, uint32_t fill) {
  return ptx::permute(word, fill, 0x4040u + 0x0101u * Index);
}

// Two codes at bit 0 of both halves, magic OR-ed in; assembles the planes of 3, 5 and 6 bits.
template <int Bits, int Step, int Reg>
__device__ __forceinline__ uint32_t lift_pair(const Tile<Bits>& tile, uint32_t magic) {
  constexpr int kBase = base_width(Bits), kExtra = extra_width(Bits);
  constexpr Field base = field_of(kBase, Step, Reg);
  constexpr uint32_t base_mask = 0x00010001u * ((1u << kBase) - 1);
  uint32_t codes = ptx::and_or(tile.base.word[base.word] >> base.bit, base_mask, magic);
  if constexpr (kExtra > 0) {
    constexpr Field extra = field_of(kExtra, Step, Reg);
    constexpr uint32_t extra_mask = (0x00010001u * ((1u << kExtra) - 1)) << kBase;
    const uint32_t word = tile.extra.word[extra.word];
    const uint32_t at = extra.bit >= kBase ? word >> (extra.bit - kBase) : word << (kBase - extra.bit);
    codes = ptx::and_or(at, extra_mask, codes);
  }
  return codes;
}

// Turns codes into `code - zero` operands. Made once per block from the zero points of the lane's two
// columns: byte 0 for the column `group`, byte 1 for `group + 8`; or from the constant `Zero`, and then with no
// instruction at all.
template <Element E, int Bits, int Zero = -1>
class Dequantizer {
 public:
  static constexpr int kWeightParts = 1;

  __device__ __forceinline__ Dequantizer(const MatMulArgs&, uint32_t zeros) { next_block(zeros); }

  __device__ __forceinline__ void next_block(uint32_t zeros) {
    if constexpr (kInPlace) {
#pragma unroll
      for (int r = 0; r < kRegisters; ++r) {
        // 1024 * 2^-p + zero, p = (r % per_byte) * Bits; its unit in the last place is 2^-p.
        const int p = r * Bits % 8;
        const uint32_t zero = r % 2 ? spread<1>(zeros, 0) : spread<0>(zeros, 0);
        const uint32_t sign = p == 0 ? 0 : 0x80008000u;  // fma adds, the plain case subtracts
        constant_[r] = (zero << p) + (0x64006400u - 0x04000400u * p + sign);
      }
    } else if constexpr (E == Element::kHalf) {
      constant_[0] = spread<0>(zeros, 0x64646464u);
      constant_[1] = spread<1>(zeros, 0x64646464u);
    } else if constexpr (Bits == 8) {
      constant_[0] = Zero < 0 ? ptx::permute(zeros, 0x4b000000u, 0x7440u) : 0x4b000000u + Zero;
      constant_[1] = Zero < 0 ? ptx::permute(zeros, 0x4b000000u, 0x7441u) : 0x4b000000u + Zero;
    } else {
      constant_[0] = spread<0>(zeros, 0xc3c3c3c3u);  // -(128 + zero)
      constant_[1] = spread<1>(zeros, 0xc3c3c3c3u);
    }
  }

  template <int Step>
  __device__ __forceinline__ void fragment(const Tile<Bits>& tile, int /* part */, uint32_t (&a)[4]) const {
    a[0] = pair<Step, 0>(tile);
    a[1] = pair<Step, 1>(tile);
    a[2] = pair<Step, 2>(tile);
    a[3] = pair<Step, 3>(tile);
  }

 private:
  // 2 and 4-bit codes are used where they stand in their byte: no shift for half of them or more.
  static constexpr bool kInPlace = E == Element::kHalf && (Bits == 2 || Bits == 4);

  template <int Index>
  __device__ __forceinline__ static uint32_t spread(uint32_t zeros, uint32_t fill) {
    if constexpr (Zero < 0) {
      return spread_byte<Index>(zeros, fill);
    } else {
      return 0x00010001u * Zero | (fill & 0xff00ff00u);
    }
  }

  template <int Step, int Reg>
  __device__ __forceinline__ uint32_t pair(const Tile<Bits>& tile) const {
    if constexpr (kInPlace) {
      constexpr Field field = field_of(Bits, Step, Reg);
      constexpr int p = field.bit % 8;
      constexpr uint32_t mask = (0x00010001u * ((1u << Bits) - 1)) << p;
      const uint32_t word = tile.base.word[field.word];
      const uint32_t lifted = ptx::and_or(field.bit < 8 ? word : word >> 8, mask, 0x64006400u);
      if constexpr (p == 0) return ptx::half2_sub(lifted, constant_[Reg]);
      constexpr uint32_t factor = 0x3c003c00u - 0x04000400u * p;  // 2^-p
      return ptx::half2_fma(lifted, factor, constant_[Reg]);
    } else if constexpr (Bits == 8) {
      return byte_pair<Step, Reg>(tile);
    } else if constexpr (E == Element::kHalf) {
      return ptx::half2_sub(lift_pair<Bits, Step, Reg>(tile, 0x64006400u), constant_[Reg % 2]);
    } else {
      return ptx::bfloat2_fma(lift_pair<Bits, Step, Reg>(tile, 0x43004300u), 0x3f803f80u, constant_[Reg % 2]);
    }
  }

  template <int Step, int Reg>
  __device__ __forceinline__ uint32_t byte_pair(const Tile<Bits>& tile) const {
    constexpr Field field = field_of(8, Step, Reg);
    constexpr int first = field.bit / 8;  // bytes first and first + 2
    const uint32_t word = tile.base.word[field.word];
    if constexpr (E == Element::kHalf) {
      const uint32_t lifted = ptx::permute(word, 0x64646464u, 0x4240u + 0x0101u * first);
      return ptx::half2_sub(lifted, constant_[Reg % 2]);
    } else {
      // code - zero has at most 8 significant bits: the upper half of the float is all of it.
      const float zero = __uint_as_float(constant_[Reg % 2]);
      const uint32_t low = ptx::permute(word, 0x4b000000u, 0x7440u + first);
      const uint32_t high = ptx::permute(word, 0x4b000000u, 0x7442u + first);
      return ptx::permute(__float_as_uint(__uint_as_float(low) - zero),
                          __float_as_uint(__uint_as_float(high) - zero), 0x7632u);
    }
  }

  uint32_t constant_[kRegisters];
};

}  // namespace onnxq::cuda
