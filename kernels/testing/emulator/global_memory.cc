#include "global_memory.h"

#include <algorithm>
#include <cstring>

#include "counters.h"
#include "machine.h"

namespace emu {

GlobalMemory& global_memory() {
  static GlobalMemory memory;
  return memory;
}

void GlobalMemory::add(void* base, size_t size, bool writable, bool initialised, const std::string& name) {
  Buffer buffer{reinterpret_cast<uint64_t>(base), size, writable, name, {}, {}};
  buffer.initialised.assign(size, initialised);
  buffers_.push_back(std::move(buffer));
}

bool GlobalMemory::remove(const void* base) {
  const auto found = std::find_if(buffers_.begin(), buffers_.end(),
                                  [&](const Buffer& b) { return b.base == reinterpret_cast<uint64_t>(base); });
  if (found == buffers_.end()) return false;
  buffers_.erase(found);
  return true;
}

bool GlobalMemory::mark_initialised(const void* from, size_t size) {
  const uint64_t address = reinterpret_cast<uint64_t>(from);
  Buffer* buffer = find(address, size);
  if (buffer == nullptr) return false;
  std::fill_n(buffer->initialised.begin() + static_cast<ptrdiff_t>(address - buffer->base), size, 1);
  return true;
}

bool GlobalMemory::all_initialised(const void* base) const {
  for (const Buffer& b : buffers_)
    if (b.base == reinterpret_cast<uint64_t>(base))
      return std::all_of(b.initialised.begin(), b.initialised.end(), [](uint8_t v) { return v != 0; });
  return false;
}

Buffer* GlobalMemory::find(uint64_t address, uint64_t size) {
  for (Buffer& b : buffers_)
    if (address >= b.base && address + size <= b.base + b.size) return &b;
  return nullptr;
}

std::string GlobalMemory::nearest(uint64_t address) const {
  for (const Buffer& b : buffers_) {
    if (address + 65536 < b.base || address > b.base + b.size + 65536) continue;
    if (address < b.base) return b.name + " - " + std::to_string(b.base - address);
    return b.name + " + " + std::to_string(address - b.base) + " of " + std::to_string(b.size);
  }
  return "an address near no buffer";
}

bool GlobalMemory::check(uint64_t address, uint32_t size, bool write, uint32_t site) {
  if (address % size != 0) fault(Fault::kMisaligned, site, std::to_string(size) + " bytes at " + nearest(address));
  if (!machine->options.strict_global) return true;
  Buffer* buffer = find(address, size);
  if (buffer == nullptr) {
    fault(Fault::kGlobalBounds, site, (write ? "write of " : "read of ") + std::to_string(size) + " at " + nearest(address));
    return false;
  }
  if (write && !buffer->writable) {
    fault(Fault::kReadOnlyWrite, site, buffer->name);
    return false;
  }
  if (buffer->writable && buffer->writer_launch != launch_) {
    buffer->writer.assign(buffer->size, 0);
    buffer->writer_launch = launch_;
  }
  const uint32_t me = 1 + machine->cta->number * machine->launch.threads + machine->thread->index;
  for (uint64_t i = address - buffer->base; i < address - buffer->base + size; ++i) {
    const uint32_t writer = buffer->writable ? buffer->writer[i] : 0;
    if (writer != 0 && (write || writer != me)) {
      fault(Fault::kGlobalRace, site, buffer->name + " + " + std::to_string(i) + (write ? ": written twice" : ": read after a write"));
      return false;
    }
    if (write) {
      buffer->writer[i] = me;
      buffer->initialised[i] = 1;
    } else if (!buffer->initialised[i]) {
      fault(Fault::kUninitialised, site, buffer->name + " + " + std::to_string(i));
      return false;
    }
  }
  return true;
}

void GlobalMemory::read(uint64_t address, void* to, uint32_t size, uint32_t site) {
  count_access(Space::kGlobalRead, address, size, site);
  if (check(address, size, false, site)) {
    std::memcpy(to, reinterpret_cast<const void*>(address), size);
  } else {
    std::memset(to, 0xff, size);
  }
}

void GlobalMemory::write(uint64_t address, const void* from, uint32_t size, uint32_t site) {
  count_access(Space::kGlobalWrite, address, size, site);
  if (check(address, size, true, site)) std::memcpy(reinterpret_cast<void*>(address), from, size);
}

}  // namespace emu
