#include "shared_memory.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "counters.h"
#include "machine.h"

namespace emu {

void SharedMemory::reset(uint32_t bytes) {
  bytes_.assign(bytes, 0xff);
  shadow_.assign((bytes + kGranule - 1) / kGranule, Shadow{});
}

bool SharedMemory::check(uint32_t offset, uint32_t size, bool write, uint32_t site) {
  const auto at = [&](uint32_t byte) { return "shared byte " + std::to_string(byte); };
  if (uint64_t{offset} + size > bytes_.size()) {
    fault(Fault::kSharedBounds, site, at(offset) + " + " + std::to_string(size) + " of " + std::to_string(bytes_.size()));
    return false;
  }
  if (offset % size != 0 || size < kGranule) {
    fault(Fault::kMisaligned, site, at(offset) + " for an access of " + std::to_string(size));
    return false;
  }
  const int32_t me = static_cast<int32_t>(machine->thread->index);
  const uint32_t epoch = machine->cta->epoch;
  for (uint32_t byte = offset; byte < offset + size; byte += kGranule) {
    Shadow& s = shadow_[byte / kGranule];
    if (s.in_flight != 0) {
      fault(Fault::kAsyncRace, site, at(byte) + " is the target of a cp.async on its way");
      return false;
    }
    const bool other_writer = s.write_epoch == epoch && s.writer != me && s.writer != kNobody;
    const bool other_reader = s.read_epoch == epoch && s.reader != me && s.reader != kNobody;
    if (other_writer || (write && other_reader)) {
      const int32_t who = other_writer ? s.writer : s.reader;
      fault(Fault::kSharedRace, site,
            std::string(write ? "write" : "read") + " of " + at(byte) + ", no barrier since " +
                (who == kSeveral ? std::string("several threads") : "thread " + std::to_string(who)) +
                (other_writer ? " wrote it" : " read it"));
      return false;
    }
    if (write) {
      s.write_epoch = epoch;
      s.writer = me;
      s.initialised = true;
      continue;
    }
    // The reader is noted even so: whoever writes here later without a barrier races with it.
    s.reader = s.read_epoch == epoch && s.reader != me && s.reader != kNobody ? kSeveral : me;
    s.read_epoch = epoch;
    if (!s.initialised) {
      fault(Fault::kUninitialised, site, at(byte) + " was never written");
      return false;
    }
  }
  return true;
}

void SharedMemory::read(uint32_t offset, void* to, uint32_t size, uint32_t site) {
  count_access(Space::kShared, offset, size, site);
  if (check(offset, size, false, site)) {
    std::memcpy(to, &bytes_[offset], size);
  } else {
    std::memset(to, 0xff, size);
  }
}

void SharedMemory::write(uint32_t offset, const void* from, uint32_t size, uint32_t site) {
  count_access(Space::kShared, offset, size, site);
  if (check(offset, size, true, site)) std::memcpy(&bytes_[offset], from, size);
}

void SharedMemory::take_off(uint32_t offset, uint32_t site) {
  count_access(Space::kShared, offset, 16, site);
  if (!check(offset, 16, true, site)) return;  // the hazards of a copy that lands at once
  std::memset(&bytes_[offset], 0xff, 16);
  for (uint32_t byte = offset; byte < offset + 16; byte += kGranule) shadow_[byte / kGranule].in_flight += 1;
}

void SharedMemory::land(uint32_t offset, const void* from, uint32_t present) {
  if (uint64_t{offset} + 16 > bytes_.size() || offset % 16 != 0) return;  // reported when it took off
  std::memset(&bytes_[offset], 0, 16);
  if (present != 0) std::memcpy(&bytes_[offset], from, std::min(present, 16u));
  for (uint32_t byte = offset; byte < offset + 16; byte += kGranule) {
    Shadow& s = shadow_[byte / kGranule];
    if (s.in_flight != 0) s.in_flight -= 1;
    // It becomes visible to its own thread now, to the others after the next barrier.
    s.write_epoch = machine->cta->epoch;
    s.writer = static_cast<int32_t>(machine->thread->index);
    s.initialised = true;
  }
}

}  // namespace emu
