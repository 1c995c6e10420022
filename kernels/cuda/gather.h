// Rows of a packed table on the device. The table [V, K] is the weight [K, V] of the head tied to it.
#pragma once

#include "cuda/device_weight.h"

namespace onnxq::cuda {

class Gather {
 public:
  // `packed` is the transposed table: k elements a row, n rows.
  explicit Gather(const PackedWeight& packed);

  // output [count, k] = the table's rows at `indices` (int64 if `wide`, else int32), on `stream`. An index
  // outside the table gives a row of NaN.
  void run(const void* indices, bool wide, void* output, int64_t count, Stream stream) const;

  int k() const { return k_; }

 private:
  const int k_, rows_, block_log2_, zero_stride_;
  const Element element_;
  const std::shared_ptr<const DeviceWeight> weight_;
  const Function function_;
};

}  // namespace onnxq::cuda
