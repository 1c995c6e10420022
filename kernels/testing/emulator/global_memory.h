// Global memory: the buffers a launch may touch, with bounds, initialisation and one writer per byte.
//
// Addresses are the host's own. Our kernels never let two threads of one launch communicate through
// global memory, so a byte written twice, or read by another thread after it was written, is a race
// whatever the order was.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace emu {

struct Buffer {
  uint64_t base;
  uint64_t size;
  bool writable;
  std::string name;
  std::vector<uint8_t> initialised;  // per byte
  std::vector<uint32_t> writer;      // per byte: 1 + number of the thread in its launch, 0 nobody
  uint64_t writer_launch = 0;        // the launch that `writer` speaks of
};

class GlobalMemory {
 public:
  void add(void* base, size_t size, bool writable, bool initialised, const std::string& name);
  bool remove(const void* base);
  bool mark_initialised(const void* from, size_t size);  // false: outside every buffer
  bool all_initialised(const void* base) const;
  void begin_launch() { ++launch_; }

  void read(uint64_t address, void* to, uint32_t size, uint32_t site);
  void write(uint64_t address, const void* from, uint32_t size, uint32_t site);

 private:
  Buffer* find(uint64_t address, uint64_t size);
  bool check(uint64_t address, uint32_t size, bool write, uint32_t site);
  std::string nearest(uint64_t address) const;

  std::vector<Buffer> buffers_;
  uint64_t launch_ = 0;
};

GlobalMemory& global_memory();

}  // namespace emu
