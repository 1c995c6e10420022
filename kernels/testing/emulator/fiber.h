// Threads of the emulated GPU: stacks that are switched by hand, a few nanoseconds each.
#pragma once

#include <cstddef>

namespace emu {

class Fiber {
 public:
  Fiber() = default;
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;
  ~Fiber();

  // Prepares to run `entry` from its start; `entry` must never return. Keeps the stack for reuse.
  void reset(void (*entry)());

  // Runs this fiber until it calls `leave`.
  void enter();

  // Called on the fiber: back to whoever entered it.
  void leave();

 private:
  // Translated kernels keep their registers in arrays of up to 100 KiB.
  static constexpr size_t kStackBytes = 512 * 1024;
  void* stack_ = nullptr;
  void* stack_pointer_ = nullptr;
  void* caller_ = nullptr;
};

}  // namespace emu
