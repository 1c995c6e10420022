// Rows of float16 to float32 and back, for every instruction set.
#pragma once

#include "cpu/half.h"
#include "cpu/kernels.h"

namespace onnxq::cpu {

template <class V>
void widen(const uint16_t* half, int64_t count, float* out) {
  int64_t i = 0;
  for (; i + V::kColumns <= count; i += V::kColumns) V::store(out + i, V::load_half(half + i));
  for (; i < count; ++i) out[i] = half_to_float(half[i]);
}

template <class V>
void narrow(const float* values, int64_t count, uint16_t* out) {
  int64_t i = 0;
  for (; i + V::kColumns <= count; i += V::kColumns) V::store_half(out + i, V::load(values + i));
  for (; i < count; ++i) out[i] = float_to_half(values[i]);
}

}  // namespace onnxq::cpu
