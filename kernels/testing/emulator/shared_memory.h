// A CTA's shared memory and what is known of each pair of bytes: who wrote, who read, since when.
//
// Two accesses conflict when they come from different threads, one writes, and no barrier lies between.
// Knowing the last writer, and whether the readers since then are one thread or several, is
// enough to decide that exactly, in whatever order the threads really ran.
#pragma once

#include <cstdint>
#include <vector>

namespace emu {

class SharedMemory {
 public:
  // Fresh and uninitialised; contents are NaNs.
  void reset(uint32_t bytes);

  void read(uint32_t offset, void* to, uint32_t size, uint32_t site);
  void write(uint32_t offset, const void* from, uint32_t size, uint32_t site);

  // A cp.async was issued into 16 bytes: they are garbage until `land`.
  void take_off(uint32_t offset, uint32_t site);
  void land(uint32_t offset, const void* from, uint32_t present);

 private:
  static constexpr uint32_t kGranule = 2;  // the smallest access of our kernels
  static constexpr int32_t kNobody = -1, kSeveral = -2;
  struct Shadow {
    uint32_t write_epoch = 0, read_epoch = 0;
    int32_t writer = kNobody, reader = kNobody;
    uint16_t in_flight = 0;
    bool initialised = false;
  };

  bool check(uint32_t offset, uint32_t size, bool write, uint32_t site);

  std::vector<unsigned char> bytes_;
  std::vector<Shadow> shadow_;
};

}  // namespace emu
