// A block of memory on a cache-line boundary, freed with its owner.
#pragma once

#include <cstddef>
#include <memory>
#include <new>

#include "cpu/pages.h"

namespace onnxq::cpu {

inline constexpr std::size_t kCacheLine = 64;

// From here on it is worth asking for large pages.
inline constexpr std::size_t kLargeBuffer = std::size_t{4} << 20;

template <class T>
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  // Contents are not initialised.
  explicit AlignedBuffer(std::size_t count)
      : data_(static_cast<T*>(::operator new(count * sizeof(T), std::align_val_t{kCacheLine}))), size_(count) {
    if (bytes() >= kLargeBuffer) advise_large(data(), bytes());
  }

  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  std::size_t size() const { return size_; }
  std::size_t bytes() const { return size_ * sizeof(T); }

 private:
  struct Release {
    void operator()(T* data) const { ::operator delete(data, std::align_val_t{kCacheLine}); }
  };
  std::unique_ptr<T, Release> data_;
  std::size_t size_ = 0;
};

}  // namespace onnxq::cpu
