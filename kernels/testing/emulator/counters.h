// What the memory system would make of each instruction: 32-byte sectors of global requests, and
// wavefronts of shared ones. The lanes of a warp that execute one instruction for the same time form
// one request, whatever order the emulator ran them in.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace emu {

enum class Space : uint8_t { kGlobalRead, kGlobalWrite, kShared };

struct SiteCount {
  uint32_t site = 0;
  Space space = Space::kGlobalRead;
  uint32_t access_bytes = 0;    // of one lane
  uint64_t requests = 0;
  uint64_t useful_bytes = 0;    // distinct bytes asked for
  uint64_t sectors = 0;         // global: 32-byte sectors moved
  uint64_t wavefronts = 0;      // shared: cycles the banks need
  uint64_t ideal_wavefronts = 0;
};

void begin_counting();
void count_access(Space space, uint64_t address, uint32_t size, uint32_t site);
std::vector<SiteCount> end_counting();

}  // namespace emu
