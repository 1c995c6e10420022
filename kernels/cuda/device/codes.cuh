// What the codes of a weight mean: integers with zero points, or indices into a codebook. The matmul kernels take one
// of these as their `Code` and are otherwise the same.
#pragma once

#include "codebook.cuh"
#include "scales.cuh"

namespace onnxq::cuda {

// W = (code - zero point) * scale
template <int Bits>
struct Integers {
  static constexpr int kBits = Bits;
  static constexpr bool kZeroPoints = true;
  using Args = MatMulArgs;
  template <int Period>
  using Zeros = ZeroRow<Period>;
  template <Element E>
  using Dequantizer = cuda::Dequantizer<E, Bits>;
};

// The same with symmetric_zero(bits) everywhere. Decode kernels only: a sixth of their instructions would go into zero
// points that are all equal. Tile kernels spread that over many tokens.
template <int Bits>
struct SymmetricIntegers : Integers<Bits> {
  static constexpr bool kZeroPoints = false;
  template <int Period>
  using Zeros = ConstantZeroRow<Period>;
  template <Element E>
  using Dequantizer = cuda::Dequantizer<E, Bits, symmetric_zero(Bits)>;
};

// W = codebook[code] * scale
template <int Bits>
struct Codebook {
  static constexpr int kBits = Bits;
  static constexpr bool kZeroPoints = false;
  using Args = CodebookArgs;
  template <int Period>
  using Zeros = ConstantZeroRow<Period>;
  template <Element E>
  using Dequantizer = CodebookDequantizer<E, Bits>;
};

}  // namespace onnxq::cuda
