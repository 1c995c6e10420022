// NEON registers with dot products (armv8.2-a+dotprod) for the templates of panel_reader.h: four
// registers hold a line.
#pragma once

#include <arm_neon.h>

#include "cpu/panel.h"

namespace onnxq::cpu {

struct Neon {
  using Int = int32x4_t;
  using Float = float32x4_t;
  static constexpr int kParts = 4;
  static constexpr int kColumns = 4;
  static constexpr int kBytes = 16;
  // 4 rows x 4 parts of sums + 4 registers of codes + broadcasts, of 32.
  static constexpr int kStripPanels = 1;
  static constexpr int kRegisterRows = 4;
  static constexpr bool kDotsFields = false;  // dot products of signed bytes
  static constexpr int kFloatRows = 5;

  static Int load_codes(const uint8_t* p) { return vreinterpretq_s32_u8(vld1q_u8(p)); }
  static void store_codes(uint8_t* p, Int v) { vst1q_u8(p, vreinterpretq_u8_s32(v)); }
  static Int and_bytes(Int v, int mask) {
    return vreinterpretq_s32_u8(vandq_u8(vreinterpretq_u8_s32(v), vdupq_n_u8(static_cast<uint8_t>(mask))));
  }
  static Int or_bits(Int a, Int b) { return vorrq_s32(a, b); }
  static Int shift_right(Int v, int bits) { return shift_right_lanes(v, bits); }
  static Int shift_left(Int v, int bits) { return vshlq_s32(v, vdupq_n_s32(bits)); }

  static Int broadcast(int32_t v) { return vdupq_n_s32(v); }
  static Int widen_bytes(const uint8_t* p) {
    uint32_t four;
    __builtin_memcpy(&four, p, sizeof(four));
    const uint8x8_t bytes = vreinterpret_u8_u32(vdup_n_u32(four));
    return vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(bytes))));
  }
  static Int multiply_small(Int a, Int b) { return vmulq_s32(a, b); }
  static Int subtract(Int a, Int b) { return vsubq_s32(a, b); }
  static Int and_lanes(Int v, int mask) { return vandq_s32(v, vdupq_n_s32(mask)); }
  static Int shift_right_lanes(Int v, int bits) {
    return vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(v), vdupq_n_s32(-bits)));
  }

  // sums + codes x group, 4 products a lane: codes unsigned below 2^kBits, group signed. The instruction
  // takes signed codes, so eight bits go in two halves.
  template <int kBits>
  static Int dot(Int sums, Int codes, Int group) {
    const int8x16_t a = vreinterpretq_s8_s32(group);
    if constexpr (kBits <= 7) return vdotq_s32(sums, vreinterpretq_s8_s32(codes), a);
    const Int upper = and_bytes(shift_right(codes, 4), 0x0f);
    const Int high = vdotq_s32(vdupq_n_s32(0), vreinterpretq_s8_s32(upper), a);
    return vaddq_s32(dot<4>(sums, and_bytes(codes, 0x0f), group), vshlq_n_s32(high, 4));
  }

  static Float broadcast(float v) { return vdupq_n_f32(v); }
  static Float load(const float* p) { return vld1q_f32(p); }
  static Float load_half(const uint16_t* p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
  static void store(float* p, Float v) { vst1q_f32(p, v); }
  static void store_half(uint16_t* p, Float v) { vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(v))); }
  static Float to_float(Int v) { return vcvtq_f32_s32(v); }
  static Float multiply(Float a, Float b) { return vmulq_f32(a, b); }
  static Float fma(Float a, Float b, Float c) { return vfmaq_f32(c, a, b); }
  // table[the low 4 bits of index].
  static Float look_up(const float* table, Int wide_index) {
    const Int index = and_lanes(wide_index, 0x0f);
    const float values[] = {table[vgetq_lane_s32(index, 0)], table[vgetq_lane_s32(index, 1)],
                            table[vgetq_lane_s32(index, 2)], table[vgetq_lane_s32(index, 3)]};
    return vld1q_f32(values);
  }
};

}  // namespace onnxq::cpu
