// The emulated GPU: one launch at a time, a few CTAs alive at once, threads in random order.
//
// The pieces: machine.cc schedules; shared_memory.cc and global_memory.cc check every access;
// warp.cc gathers warp operations; counters.cc counts sectors and bank conflicts.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "fiber.h"
#include "kernel_abi.h"
#include "shared_memory.h"

namespace emu {

struct Options {
  uint64_t seed = 0;
  uint32_t coresident = 1;      // CTAs alive at once
  bool shuffle = true;          // threads and CTAs in random order
  bool strict_global = true;    // global addresses must lie in registered buffers
  bool truncate_sums = false;   // mma sums truncated as tensor cores do, instead of rounded once
  bool count = false;           // keep counters.h's records
};

// What went wrong, by kind; any of them fails the launch.
enum class Fault {
  kSharedRace,
  kAsyncRace,       // touched while a cp.async into it is on its way
  kSharedBounds,
  kGlobalBounds,
  kReadOnlyWrite,
  kGlobalRace,      // a byte written twice, or read after another thread wrote it
  kMisaligned,
  kUninitialised,
  kDeadlock,
  kLivelock,
  kDivergent,       // lanes meet at different warp operations, or threads at different barriers
  kCopyUnwaited,    // a thread exits with a cp.async on its way
  kParamBounds,
  kCount,
};
const char* fault_name(Fault fault);

struct Report {
  std::array<uint64_t, static_cast<size_t>(Fault::kCount)> faults{};
  std::vector<std::string> messages;  // the first few, in words
  std::set<std::pair<Fault, uint32_t>> told;  // kinds and instructions that have a message
  uint64_t mma = 0, barriers = 0, async_copies = 0, switches = 0;
  bool clean() const;
};

enum class State : uint8_t { kReady, kBarrier, kWarp, kDone };

struct PendingCopy {
  uint32_t to;
  uint64_t from;
  uint32_t present;
  uint32_t group;
};

struct Thread {
  Fiber fiber;
  uint32_t index = 0;
  State state = State::kReady;
  uint32_t copy_group = 0;
  std::vector<PendingCopy> copies;
};

struct Warp {
  uint32_t arrived = 0;  // lanes waiting at the operation below
  uint32_t operation = 0;
  uint32_t site = 0;
  void* arguments[32] = {};
};

struct Cta {
  Index3 index{};
  uint32_t number = 0;
  bool live = false;
  std::vector<std::unique_ptr<Thread>> threads;
  std::vector<Warp> warps;
  SharedMemory shared;
  uint32_t at_barrier = 0;
  uint32_t barrier_site = 0;
  uint32_t epoch = 1;  // barriers passed
};

struct Launch {
  const Kernel* kernel;
  Index3 grid;
  uint32_t threads;
  uint32_t dynamic_shared_bytes;
  const unsigned char* param;
};

// Runs one launch to its end, or to the first fault that makes going on pointless.
Report run(const Launch& launch, const Options& options);

// State of the launch under way; valid on its threads.
struct Machine {
  Launch launch;
  Options options;
  Report report;
  std::mt19937_64 random;
  Cta* cta = nullptr;
  Thread* thread = nullptr;
  bool stop = false;
};
extern Machine* machine;

// Notes a fault of the current thread at `site`.
void fault(Fault kind, uint32_t site, const std::string& what);
inline constexpr uint32_t kNoSite = ~0u;

// Back to the scheduler until somebody makes this thread ready again.
void suspend(State state);

}  // namespace emu
