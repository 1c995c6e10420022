#include "cuda/device_weight.h"

#include <map>
#include <mutex>
#include <tuple>

#include "cuda/modules.h"
#include "error.h"

namespace onnxq::cuda {
namespace {

// FNV-1a over the packed bytes: with the shape, what tells weights apart.
uint64_t digest(const std::vector<uint8_t>& bytes) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const uint8_t byte : bytes) hash = (hash ^ byte) * 0x100000001b3;
  return hash;
}

}  // namespace

Device current_device() {
  current_context();
  int device = 0, major = 0, minor = 0;
  Device found;
  check(driver().cuCtxGetDevice(&device), "cuCtxGetDevice");
  check(driver().cuDeviceGetAttribute(&found.multiprocessors, kMultiprocessorCount, device), "cuDeviceGetAttribute");
  check(driver().cuDeviceGetAttribute(&major, kComputeCapabilityMajor, device), "cuDeviceGetAttribute");
  check(driver().cuDeviceGetAttribute(&minor, kComputeCapabilityMinor, device), "cuDeviceGetAttribute");
  found.capability = 10 * major + minor;
  if (found.capability < 80)
    fail("the GPU has compute capability ", major, ".", minor, "; onnxq's CUDA kernels need 8.0 or newer (cp.async)");
  return found;
}

std::shared_ptr<const DeviceWeight> DeviceWeight::upload(const PackedWeight& packed) {
  using Key = std::tuple<Context, int, int, int, int, int, int, uint64_t>;
  static std::mutex mutex;
  static std::map<Key, std::weak_ptr<const DeviceWeight>> uploaded;
  const Key key{current_context(), packed.k,           packed.n,
                packed.bits,       packed.block_log2,  packed.zero_stride,
                static_cast<int>(packed.element),      digest(packed.bytes)};
  const std::lock_guard lock(mutex);
  std::erase_if(uploaded, [](const auto& entry) { return entry.second.expired(); });
  if (auto there = uploaded[key].lock()) return there;
  auto fresh = std::make_shared<const DeviceWeight>(packed);
  uploaded[key] = fresh;
  return fresh;
}

DeviceWeight::DeviceWeight(const PackedWeight& packed)
    : context_(current_context()), scales_offset_(packed.scales_offset), zeros_offset_(packed.zeros_offset) {
  const Driver& d = driver();
  check(d.cuMemAlloc_v2(&base_, packed.bytes.size()), "allocating device memory for a packed weight");
  if (const Result result = d.cuMemcpyHtoD_v2(base_, packed.bytes.data(), packed.bytes.size()); result != 0) {
    d.cuMemFree_v2(base_);
    check(result, "uploading a packed weight");
  }
}

DeviceWeight::~DeviceWeight() {
  // Errors have nowhere to go: at exit the driver may already be gone, and the memory with it.
  const Driver& d = driver();
  Context before = nullptr;
  if (d.cuCtxGetCurrent(&before) != 0 || d.cuCtxSetCurrent(context_) != 0) return;
  d.cuMemFree_v2(base_);
  d.cuCtxSetCurrent(before);
}

}  // namespace onnxq::cuda
