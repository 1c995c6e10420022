// A packed weight on the device, and the product with it. One object per node; `run` is const and may be
// called from several threads at once: all it needs besides the weight is in its arguments.
#pragma once

#include <array>

#include "cuda/dispatch.h"
#include "cuda/driver.h"
#include "cuda/repack.h"

namespace onnxq::cuda {

// Device memory of one packed weight. Never copied: the device holds a weight once.
class DeviceWeight {
 public:
  explicit DeviceWeight(const PackedWeight& packed);
  DeviceWeight(const DeviceWeight&) = delete;
  DeviceWeight& operator=(const DeviceWeight&) = delete;
  ~DeviceWeight();

  DevicePointer tiles() const { return base_; }
  DevicePointer scales() const { return base_ + scales_offset_; }
  DevicePointer zeros() const { return base_ + zeros_offset_; }

 private:
  Context context_;
  DevicePointer base_ = 0;
  std::size_t scales_offset_, zeros_offset_;
};

class MatMul {
 public:
  // Repacks nothing, but uploads `packed` and loads every kernel that `run` may choose.
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
  Device device_;
  DeviceWeight weight_;
  std::array<Function, 3> functions_;  // by Kind
};

}  // namespace onnxq::cuda
