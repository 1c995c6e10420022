// Codebook indices of one tile into tensor-core operands: a table of up to 16 values, looked up by byte permutes.
//
// prmt takes four bytes out of eight, by four selectors of a nibble each; the nibble's top bit asks for sign bits
// instead. So an index below 8 is a selector as it stands, and one permute looks four codes up in one half of a
// byte table: low bytes and high bytes of the values are tables of their own (layout.h). For 16 values a second
// permute looks the same three bits up in the upper half, and the indices' top bits choose.
//
// Four codes belong to two registers, so that one more permute a register joins low and high bytes of both its
// halves. No memory is read, so there is no bank to conflict.
//
//   indices [h0 x, h0 y, h1 x, h1 y] -> low bytes [..], high bytes [..] -> register x {h0, h1}, register y {h0, h1}
#pragma once

#include "weights.cuh"

namespace onnxq::cuda {

// Bits 0, 2, 4, 6 of each half -> bits 0, 4, 8, 12.
__device__ __forceinline__ uint32_t spread_bits(uint32_t x) {
  x &= 0x00550055u;
  x = (x | x << 4) & 0x05050505u;
  return (x | x << 2) & 0x11111111u;
}

// The indices of a step as selectors: 16 bits for two registers, then 16 bits for the other two.
template <int Bits, int Step>
__device__ __forceinline__ uint32_t index_nibbles(const Tile<Bits>& tile) {
  if constexpr (Bits == 4) {
    // A half's four nibbles stand together; bytes 0 and 2 are registers 0 and 1 of both halves.
    return ptx::permute(tile.base.word[Step], 0, 0x3120u);
  } else {
    // Two steps of two-bit fields in a word: registers 0 and 2 at even fields, 1 and 3 at odd ones.
    const uint32_t word = tile.base.word[Step / 2];
    uint32_t even = word & 0x33333333u, odd = (word >> 2) & 0x33333333u;
    if constexpr (Bits == 3) {
      const uint32_t extra = tile.extra.word[0] >> (Step / 2 * 8);
      even |= spread_bits(extra) << 2;
      odd |= spread_bits(extra >> 1) << 2;
    }
    return ptx::permute(even, odd, Step % 2 ? 0x7531u : 0x6420u);
  }
}

template <Element E, int Bits>
class CodebookDequantizer {
 public:
  static constexpr int kWeightParts = codebook_parts(E);

  __device__ __forceinline__ CodebookDequantizer(const CodebookArgs& args, uint32_t) : args_(args) {}
  __device__ __forceinline__ void next_block(uint32_t) {}

  template <int Step>
  __device__ __forceinline__ void fragment(const Tile<Bits>& tile, int part, uint32_t (&a)[4]) const {
    static_assert(Bits >= 2 && Bits <= 4);
    const uint32_t indices = index_nibbles<Bits, Step>(tile);
    constexpr int kSecond = Bits == 4 ? 1 : 2;  // the register that shares selectors with register 0
    const uint32_t select = indices & 0x77777777u, upper = (indices >> 1) & 0x44444444u;
    look_up(part, select, upper, a[0], a[kSecond]);
    look_up(part, select >> 16, upper >> 16, a[3 - kSecond], a[3]);
  }

 private:
  __device__ __forceinline__ void look_up(int part, uint32_t select, uint32_t upper, uint32_t& x, uint32_t& y) const {
    const uint32_t* table = args_.table[part];
    // Bytes of ones where the index is 8 or more.
    const uint32_t mask = Bits == 4 ? ptx::permute(0, 0xffffffffu, upper) : 0;
    const uint32_t low = bytes(table, select, mask), high = bytes(table + 4, select, mask);
    x = ptx::permute(low, high, 0x6240u);
    y = ptx::permute(low, high, 0x7351u);
  }

  __device__ __forceinline__ static uint32_t bytes(const uint32_t* table, uint32_t select, uint32_t mask) {
    const uint32_t below = ptx::permute(table[0], Bits == 2 ? 0 : table[1], select);
    if constexpr (Bits < 4) return below;
    const uint32_t above = ptx::permute(table[2], table[3], select);
    return (above & mask) | (below & ~mask);
  }

  const CodebookArgs& args_;
};

}  // namespace onnxq::cuda
