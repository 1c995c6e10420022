#include "counters.h"

#include <algorithm>
#include <array>
#include <deque>
#include <map>
#include <set>
#include <tuple>

#include "machine.h"

namespace emu {
namespace {

struct Request {
  uint32_t lanes = 0;  // mask
  std::array<uint64_t, 32> address{};
  uint32_t size = 0;
};

// One instruction of one warp: how often each lane came by, and the requests not yet complete.
struct WarpSite {
  std::array<uint32_t, 32> visits{};
  uint32_t closed = 0;
  std::deque<Request> open;
};

using Key = std::tuple<uint32_t, uint32_t, uint32_t, Space>;  // cta, warp, site, space
std::map<Key, WarpSite> under_way;
std::map<std::pair<uint32_t, Space>, SiteCount> totals;

uint64_t distinct(const Request& r, uint32_t unit) {
  std::set<uint64_t> units;
  for (int lane = 0; lane < 32; ++lane)
    if (r.lanes >> lane & 1)
      for (uint64_t u = r.address[lane] / unit; u <= (r.address[lane] + r.size - 1) / unit; ++u) units.insert(u);
  return units.size();
}

// Shared memory serves 128 bytes at a time: 32 lanes of 4 bytes, 16 of 8 or 8 of 16. Lanes that read
// the same word share it; different words of one bank queue up.
void count_wavefronts(const Request& r, SiteCount& total) {
  const int together = r.size <= 4 ? 32 : r.size == 8 ? 16 : 8;
  for (int first = 0; first < 32; first += together) {
    std::array<std::set<uint64_t>, 32> banks;
    for (int lane = first; lane < first + together; ++lane)
      if (r.lanes >> lane & 1)
        for (uint64_t w = r.address[lane] / 4; w <= (r.address[lane] + r.size - 1) / 4; ++w) banks[w % 32].insert(w);
    size_t deepest = 0;
    for (const auto& bank : banks) deepest = std::max(deepest, bank.size());
    total.wavefronts += deepest;
    total.ideal_wavefronts += deepest > 0;
  }
}

void close(const Key& key, const Request& r) {
  const auto [cta, warp, site, space] = key;
  SiteCount& total = totals[{site, space}];
  total.site = site;
  total.space = space;
  total.access_bytes = r.size;
  total.requests += 1;
  total.useful_bytes += distinct(r, 1);
  if (space == Space::kShared) {
    count_wavefronts(r, total);
  } else {
    total.sectors += distinct(r, 32);
  }
}

}  // namespace

void begin_counting() {
  under_way.clear();
  totals.clear();
}

void count_access(Space space, uint64_t address, uint32_t size, uint32_t site) {
  if (!machine->options.count) return;
  const uint32_t thread = machine->thread->index, lane = thread % 32;
  const Key key{machine->cta->number, thread / 32, site, space};
  WarpSite& log = under_way[key];
  const uint32_t visit = log.visits[lane]++ - log.closed;
  if (visit >= log.open.size()) log.open.resize(visit + 1);
  Request& request = log.open[visit];
  request.lanes |= 1u << lane;
  request.address[lane] = address;
  request.size = size;
  while (!log.open.empty() && log.open.front().lanes == ~0u) {
    close(key, log.open.front());
    log.open.pop_front();
    log.closed += 1;
  }
}

std::vector<SiteCount> end_counting() {
  for (const auto& [key, log] : under_way)
    for (const Request& request : log.open)
      if (request.lanes != 0) close(key, request);
  under_way.clear();
  std::vector<SiteCount> result;
  for (const auto& [key, total] : totals) result.push_back(total);
  return result;
}

}  // namespace emu
