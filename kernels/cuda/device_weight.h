// A packed weight in device memory.
#pragma once

#include <cstddef>
#include <memory>

#include "cuda/dispatch.h"
#include "cuda/driver.h"
#include "cuda/repack.h"

namespace onnxq::cuda {

// The device of the current context. Throws Error below compute capability 8.0.
Device current_device();

class DeviceWeight {
 public:
  // The weight on the device of the current context. A weight that is already there (a head tied to its
  // embedding, a second session on the same model) is shared, not copied.
  static std::shared_ptr<const DeviceWeight> upload(const PackedWeight& packed);

  explicit DeviceWeight(const PackedWeight& packed);
  DeviceWeight(const DeviceWeight&) = delete;
  DeviceWeight& operator=(const DeviceWeight&) = delete;
  ~DeviceWeight();

  const void* tiles() const { return at(0); }
  const void* scales() const { return at(scales_offset_); }
  const uint8_t* zeros() const { return static_cast<const uint8_t*>(at(zeros_offset_)); }

 private:
  const void* at(std::size_t offset) const { return reinterpret_cast<const void*>(base_ + offset); }

  Context context_;
  DevicePointer base_ = 0;
  std::size_t scales_offset_, zeros_offset_;
};

// Whether a row-major [rows, row_bytes] array may be accessed 16 bytes at a time.
inline bool rows_on_16_bytes(const void* base, int64_t row_bytes) {
  return reinterpret_cast<uintptr_t>(base) % 16 == 0 && row_bytes % 16 == 0;
}

}  // namespace onnxq::cuda
