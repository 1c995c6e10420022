// The product with a packed weight on the device. One object per node; `run` is const and may be called from
// several threads at once: all it needs besides the weight is in its arguments.
#pragma once

#include <array>

#include "cuda/device_weight.h"

namespace onnxq::cuda {

class MatMul {
 public:
  // Uploads `packed` and loads every kernel that `run` may choose.
  explicit MatMul(const PackedWeight& packed);

  // output [m, n] = activations [m, k] * weight, both of the weight's element type, on `stream`.
  void run(const void* activations, void* output, int64_t m, Stream stream) const;

  // The same with a kernel of the caller's choice.
  void launch(Kind kind, const void* activations, void* output, int m, Stream stream) const;
  Kind kind(int m) const { return choose({element_, bits_, m, n_}, device_); }

  int k() const { return k_; }
  int n() const { return n_; }

 private:
  const int k_, n_, bits_, block_log2_, zero_stride_;
  const Element element_;
  const CodebookTable table_;  // sent with every launch; all zeros for integers, whose kernels do not take it
  const Device device_;
  const std::shared_ptr<const DeviceWeight> weight_;
  std::array<Function, 3> functions_;  // by Kind
};

}  // namespace onnxq::cuda
