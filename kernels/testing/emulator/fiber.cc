#include "fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>

#if !defined(__x86_64__)
#error "the emulator's context switch is written for x86-64"
#endif

// void emu_switch(void** save, void* load): saves the callee-saved registers of the System V ABI.
asm(R"(
.text
.globl emu_switch
.hidden emu_switch
.type emu_switch, @function
emu_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size emu_switch, . - emu_switch
)");
extern "C" void emu_switch(void** save, void* load);

namespace emu {

Fiber::~Fiber() {
  if (stack_ != nullptr) munmap(stack_, kStackBytes);
}

void Fiber::reset(void (*entry)()) {
  if (stack_ == nullptr) {
    stack_ = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stack_ == MAP_FAILED) abort();
    mprotect(stack_, 4096, PROT_NONE);  // an overflow faults instead of spoiling the neighbour
  }
  void** top = reinterpret_cast<void**>(reinterpret_cast<uintptr_t>(stack_) + kStackBytes);
  *--top = nullptr;                           // a return address nobody uses; keeps 16-byte alignment
  *--top = reinterpret_cast<void*>(entry);    // where emu_switch's ret goes
  for (int saved = 0; saved < 6; ++saved) *--top = nullptr;
  stack_pointer_ = top;
}

void Fiber::enter() { emu_switch(&caller_, stack_pointer_); }
void Fiber::leave() { emu_switch(&stack_pointer_, caller_); }

}  // namespace emu
