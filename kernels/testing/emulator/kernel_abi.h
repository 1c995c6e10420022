// What a translated kernel calls. The translator writes nothing but these and semantics.h.
#pragma once

#include <cstddef>
#include <cstdint>

namespace emu {

struct Index3 {
  uint32_t x, y, z;
};

// One entry of a translated module; the table ends with an empty one.
struct Kernel {
  const char* name;
  void (*body)(const unsigned char* param);
  uint32_t param_bytes;
  uint32_t static_shared_bytes;
  const char* const* sites;  // opcode of each instruction, null for labels
  uint32_t site_count;
};

uint32_t thread_index();  // %tid.x: our CTAs are one-dimensional
Index3 block_index();

void param_read(const unsigned char* param, uint32_t bytes, uint64_t offset, void* to, uint32_t size);
void global_read(uint64_t address, void* to, uint32_t size, uint32_t site);
void global_write(uint64_t address, const void* from, uint32_t size, uint32_t site);
void shared_read(uint32_t offset, void* to, uint32_t size, uint32_t site);
void shared_write(uint32_t offset, const void* from, uint32_t size, uint32_t site);

// cp.async: `present` of 16 bytes are copied, the rest becomes zero, and not before it is waited for.
void copy_async(uint32_t to, uint64_t from, uint32_t present, uint32_t site);
void copy_async_commit();
void copy_async_wait(uint32_t pending);

void barrier(uint32_t site);

// One m16n8k16 product; every lane of the warp brings its fragment registers and takes its d.
struct Mma {
  uint32_t a[4], b[2], c[4], d[4];
};
void mma_half(Mma& lane, uint32_t site);
void mma_bfloat(Mma& lane, uint32_t site);

// Called at every branch: a thread that never yields is reported as a livelock.
extern uint64_t branches_left;
void livelock();
[[gnu::always_inline]] inline void tick() {
  if (--branches_left == 0) livelock();
}

}  // namespace emu
