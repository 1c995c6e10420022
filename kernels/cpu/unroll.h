// Loops that the compiler front end writes out: `unrolled<3>([&](auto i) ONNXQ_INLINE { sums[i] = ...; })`.
//
// Register tiles are arrays whose every index must be a constant before the compiler decides what lives
// in a register; GCC unrolls a plain loop only after that decision and leaves the array in memory.
#pragma once

#include <type_traits>
#include <utility>

#define ONNXQ_INLINE __attribute__((always_inline))

namespace onnxq::cpu {

template <int kCount, class Body>
ONNXQ_INLINE inline void unrolled(const Body& body) {
  [&]<int... kIndex>(std::integer_sequence<int, kIndex...>) ONNXQ_INLINE {
    (body(std::integral_constant<int, kIndex>{}), ...);
  }(std::make_integer_sequence<int, kCount>{});
}

}  // namespace onnxq::cpu
