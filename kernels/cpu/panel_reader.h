// Reads of one block of a panel, for every instruction set.
//
// A *vector type* V (vector_avx512.h and its neighbours) names the registers of an instruction set and a
// dozen operations. A line of codes fills V::kParts registers; part p holds columns p * V::kColumns and
// on. Everything below is a template on V, so each instruction set has symbols of its own: a shared
// inline function might be compiled with AVX-512 and then run on a machine without.
#pragma once

#include <cstring>

#include "cpu/kernels.h"
#include "cpu/unroll.h"

namespace onnxq::cpu {

// How far ahead of the codes memory is asked for them: 16 lines, measured to read 15% more from memory than
// the processor's own prefetching, and nothing less from caches.
inline constexpr int kPrefetchBytes = 1024;

// Part of field `group` of the lines of one stream.
template <class V, int kBits>
ONNXQ_INLINE inline typename V::Int stream_codes(const uint8_t* lines, int group, int part) {
  constexpr int kFields = 8 / kBits;
  const auto line = V::load_codes(lines + group / kFields * kLineBytes + part * V::kBytes);
  if constexpr (kBits == 8) {
    return line;
  } else {
    // Lanes are wider than a byte, so a shift drags in bits of the upper byte; the mask drops them.
    return V::and_bytes(V::shift_right(line, group % kFields * kBits), (1 << kBits) - 1);
  }
}

// The codes of group `group` of a block, as bytes.
template <class V, int kLow, int kHigh>
ONNXQ_INLINE inline typename V::Int group_codes(const uint8_t* low, const uint8_t* high, int group, int part) {
  const auto codes = stream_codes<V, kLow>(low, group, part);
  if constexpr (kHigh == 0) {
    return codes;
  } else {
    return V::or_bits(codes, V::shift_left(stream_codes<V, kHigh>(high, group, part), kLow));
  }
}

// What stands beside the codes of the blocks of a panel: 16 scales and 16 zero points each.
template <class V>
class BlockParameters {
 public:
  BlockParameters(const PackedWeight& weight, int64_t panel)
      : half_(weight.half_scales), scales_(weight.panel_scales(panel)), zero_points_(weight.panel_zero_points(panel)) {}

  typename V::Float scales(int64_t block, int part) const {
    const int64_t slot = block * kPanelColumns + part * V::kColumns;
    if (half_) return V::load_half(reinterpret_cast<const uint16_t*>(scales_) + slot);
    return V::load(reinterpret_cast<const float*>(scales_) + slot);
  }

  typename V::Int zero_points(int64_t block, int part) const {  // int32
    return V::widen_bytes(zero_points_ + block * kPanelColumns + part * V::kColumns);
  }

  // Where the integer product of a block starts: the correction for unsigned codes, times the zero
  // points where a weight has them.
  template <bool kZeroPoints>
  ONNXQ_INLINE typename V::Int start(int64_t block, int part, int32_t correction) const {
    if constexpr (kZeroPoints) return V::multiply_small(zero_points(block, part), V::broadcast(correction));
    return V::broadcast(correction);
  }

 private:
  bool half_;
  const uint8_t* scales_;
  const uint8_t* zero_points_;
};

// Four activation codes in every lane: what one lane of a line of codes is multiplied by.
template <class V>
ONNXQ_INLINE inline typename V::Int broadcast_group(const int8_t* a) {
  int32_t group;
  std::memcpy(&group, a, sizeof(group));
  return V::broadcast(group);
}

// Calls body.template operator()<low bits, high bits>() for the widths of a weight.
template <class Body>
void for_bits(int bits, const Body& body) {
  switch (bits) {
    case 2: return body.template operator()<2, 0>();
    case 3: return body.template operator()<2, 1>();
    case 4: return body.template operator()<4, 0>();
    case 5: return body.template operator()<4, 1>();
    case 6: return body.template operator()<4, 2>();
    default: return body.template operator()<8, 0>();
  }
}

}  // namespace onnxq::cpu
