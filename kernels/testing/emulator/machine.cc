#include "machine.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "counters.h"
#include "global_memory.h"

namespace emu {

Machine* machine = nullptr;
uint64_t branches_left = 0;

namespace {

constexpr size_t kMessages = 8;
// A thread of our largest test launches takes some ten thousand branches.
constexpr uint64_t kBranchesPerSlice = 20'000'000;

void thread_entry() {
  const Launch& launch = machine->launch;
  launch.kernel->body(launch.param);
  if (!machine->thread->copies.empty()) fault(Fault::kCopyUnwaited, kNoSite, "exits with a cp.async on its way");
  suspend(State::kDone);
}

void start(Cta& cta, uint32_t number) {
  const Launch& launch = machine->launch;
  cta.number = number;
  cta.index = {number % launch.grid.x, number / launch.grid.x % launch.grid.y, number / launch.grid.x / launch.grid.y};
  // The dynamic array follows the static ones on the next 128 bytes, as the translator assumes.
  const uint32_t fixed = launch.kernel->static_shared_bytes;
  cta.shared.reset(launch.dynamic_shared_bytes == 0 ? fixed : (fixed + 127) / 128 * 128 + launch.dynamic_shared_bytes);
  while (cta.threads.size() < launch.threads) cta.threads.push_back(std::make_unique<Thread>());
  for (uint32_t t = 0; t < launch.threads; ++t) {
    Thread& thread = *cta.threads[t];
    thread.fiber.reset(thread_entry);
    thread.index = t;
    thread.state = State::kReady;
    thread.copy_group = 0;
    thread.copies.clear();
  }
  cta.warps.assign(launch.threads / 32, Warp{});
  cta.at_barrier = 0;
  cta.epoch = 1;
  cta.live = true;
}

struct Counts {
  uint32_t ready = 0, done = 0;
};

Counts count_states(const Cta& cta) {
  Counts counts;
  for (uint32_t t = 0; t < machine->launch.threads; ++t) {
    counts.ready += cta.threads[t]->state == State::kReady;
    counts.done += cta.threads[t]->state == State::kDone;
  }
  return counts;
}

void report_deadlock(Cta& cta, uint32_t done) {
  machine->cta = &cta;
  for (const auto& thread : cta.threads)
    if (thread->state == State::kBarrier || thread->state == State::kWarp) machine->thread = thread.get();
  fault(Fault::kDeadlock, kNoSite,
        std::to_string(done) + " threads have exited, " + std::to_string(cta.at_barrier) +
            " wait at the barrier, the others in a warp operation");
  machine->stop = true;
}

// Every live CTA's ready threads, in random order, each until it waits for others.
void run_slice(std::vector<std::unique_ptr<Cta>>& slots) {
  std::vector<std::pair<Cta*, Thread*>> ready;
  for (const auto& slot : slots) {
    if (!slot->live) continue;
    const Counts counts = count_states(*slot);
    if (counts.done == machine->launch.threads) {
      slot->live = false;
    } else if (counts.ready == 0) {
      report_deadlock(*slot, counts.done);
      return;
    }
    for (uint32_t t = 0; slot->live && t < machine->launch.threads; ++t)
      if (slot->threads[t]->state == State::kReady) ready.emplace_back(slot.get(), slot->threads[t].get());
  }
  if (machine->options.shuffle) std::shuffle(ready.begin(), ready.end(), machine->random);
  for (const auto& [cta, thread] : ready) {
    if (thread->state != State::kReady || machine->stop) continue;
    machine->cta = cta;
    machine->thread = thread;
    machine->report.switches += 1;
    branches_left = kBranchesPerSlice;
    thread->fiber.enter();
  }
}

}  // namespace

const char* fault_name(Fault fault) {
  static constexpr const char* kNames[] = {
      "shared race",    "async race",  "shared bounds", "global bounds", "write to read-only", "global race",
      "misaligned",     "uninitialised", "deadlock",    "livelock",      "divergent",          "copy not waited for",
      "param bounds"};
  static_assert(std::size(kNames) == static_cast<size_t>(Fault::kCount));
  return kNames[static_cast<size_t>(fault)];
}

bool Report::clean() const {
  return std::all_of(faults.begin(), faults.end(), [](uint64_t n) { return n == 0; });
}

void fault(Fault kind, uint32_t site, const std::string& what) {
  Report& report = machine->report;
  report.faults[static_cast<size_t>(kind)] += 1;
  // One message for each kind at each instruction; the counts tell how often.
  if (report.messages.size() >= kMessages || !report.told.insert({kind, site}).second) return;
  std::string text = fault_name(kind);
  if (machine->cta != nullptr && machine->thread != nullptr)
    text += ": CTA " + std::to_string(machine->cta->index.x) + "," + std::to_string(machine->cta->index.y) + " thread " +
            std::to_string(machine->thread->index);
  const Kernel& kernel = *machine->launch.kernel;
  if (site < kernel.site_count && kernel.sites[site] != nullptr)
    text += std::string(" at ") + kernel.sites[site] + " (instruction " + std::to_string(site) + ")";
  report.messages.push_back(text + ": " + what);
}

void suspend(State state) {
  machine->thread->state = state;
  machine->thread->fiber.leave();
}

void livelock() {
  fault(Fault::kLivelock, kNoSite, "branches on and on without meeting anybody");
  machine->stop = true;
  suspend(State::kDone);
}

uint32_t thread_index() { return machine->thread->index; }
Index3 block_index() { return machine->cta->index; }

void param_read(const unsigned char* param, uint32_t bytes, uint64_t offset, void* to, uint32_t size) {
  if (offset + size > bytes) {
    fault(Fault::kParamBounds, kNoSite, "byte " + std::to_string(offset) + " of " + std::to_string(bytes));
    std::memset(to, 0xff, size);
    return;
  }
  std::memcpy(to, param + offset, size);
}

void global_read(uint64_t address, void* to, uint32_t size, uint32_t site) {
  global_memory().read(address, to, size, site);
}
void global_write(uint64_t address, const void* from, uint32_t size, uint32_t site) {
  global_memory().write(address, from, size, site);
}
void shared_read(uint32_t offset, void* to, uint32_t size, uint32_t site) {
  machine->cta->shared.read(offset, to, size, site);
}
void shared_write(uint32_t offset, const void* from, uint32_t size, uint32_t site) {
  machine->cta->shared.write(offset, from, size, site);
}

void copy_async(uint32_t to, uint64_t from, uint32_t present, uint32_t site) {
  machine->report.async_copies += 1;
  if (present != 0) {
    unsigned char probe[16];
    global_memory().read(from, probe, present, site);  // reports the faults of the source
  }
  machine->cta->shared.take_off(to, site);
  machine->thread->copies.push_back({to, from, present, machine->thread->copy_group});
}

void copy_async_commit() { machine->thread->copy_group += 1; }

void copy_async_wait(uint32_t pending) {
  Thread& thread = *machine->thread;
  const auto landed = [&](const PendingCopy& c) { return c.group + pending < thread.copy_group; };
  for (const PendingCopy& c : thread.copies)
    if (landed(c)) machine->cta->shared.land(c.to, reinterpret_cast<const void*>(c.from), c.present);
  std::erase_if(thread.copies, landed);
}

void barrier(uint32_t site) {
  Cta& cta = *machine->cta;
  if (cta.at_barrier == 0) {
    cta.barrier_site = site;
  } else if (cta.barrier_site != site) {
    fault(Fault::kDivergent, site, "others wait at the barrier of instruction " + std::to_string(cta.barrier_site));
  }
  if (++cta.at_barrier == machine->launch.threads) {
    cta.at_barrier = 0;
    cta.epoch += 1;
    machine->report.barriers += 1;
    for (const auto& thread : cta.threads)
      if (thread->state == State::kBarrier) thread->state = State::kReady;
    suspend(State::kReady);  // no privilege for the last to arrive
  } else {
    suspend(State::kBarrier);
  }
}

Report run(const Launch& launch, const Options& options) {
  Machine here{launch, options, {}, std::mt19937_64(options.seed + 1)};
  machine = &here;
  global_memory().begin_launch();
  begin_counting();
  const uint32_t total = launch.grid.x * launch.grid.y * launch.grid.z;
  std::vector<uint32_t> order(total);
  std::iota(order.begin(), order.end(), 0u);
  if (options.shuffle) std::shuffle(order.begin(), order.end(), here.random);
  std::vector<std::unique_ptr<Cta>> slots;
  for (uint32_t s = 0; s < std::min(std::max(options.coresident, 1u), total); ++s) slots.push_back(std::make_unique<Cta>());
  size_t next = 0;
  const auto any_live = [&] { return std::any_of(slots.begin(), slots.end(), [](const auto& s) { return s->live; }); };
  while (!here.stop && (next < order.size() || any_live())) {
    for (const auto& slot : slots)
      if (!slot->live && next < order.size()) start(*slot, order[next++]);
    run_slice(slots);
  }
  machine = nullptr;
  return here.report;
}

}  // namespace emu
