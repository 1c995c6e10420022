#include "cpu/pages.h"

#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace onnxq::cpu {

#if defined(__linux__)
namespace {

constexpr std::size_t kPage = 4096;
constexpr std::size_t kLargePage = std::size_t{2} << 20;

// Advises about the pages of `size` bytes that lie wholly inside the range.
bool advise(const void* data, std::size_t bytes, std::size_t size, int advice) {
  const auto begin = (reinterpret_cast<std::uintptr_t>(data) + size - 1) / size * size;
  const auto end = (reinterpret_cast<std::uintptr_t>(data) + bytes) / size * size;
  return begin < end && madvise(reinterpret_cast<void*>(begin), end - begin, advice) == 0;
}

}  // namespace

void advise_large(void* data, std::size_t bytes) { advise(data, bytes, kLargePage, MADV_HUGEPAGE); }

void populate(void* data, std::size_t bytes) {
#if defined(MADV_POPULATE_WRITE)
  advise(data, bytes, kPage, MADV_POPULATE_WRITE);
#else
  advise(data, bytes, kPage, 23);  // Linux 5.14 and newer, whatever the C library knows; others say no
#endif
}

void advise_unused(const void* data, std::size_t bytes) {
#if defined(MADV_PAGEOUT)
  // MADV_DONTNEED would be wrong: it zeroes memory that is not backed by a file.
  if (advise(data, bytes, kPage, MADV_PAGEOUT)) return;
#endif
#if defined(MADV_COLD)
  advise(data, bytes, kPage, MADV_COLD);
#endif
}
#else
void advise_large(void*, std::size_t) {}
void populate(void*, std::size_t) {}
void advise_unused(const void*, std::size_t) {}
#endif

}  // namespace onnxq::cpu
