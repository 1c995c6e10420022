#include "cuda/matmul.h"

#include <limits>

#include "cuda/modules.h"
#include "error.h"

namespace onnxq::cuda {
namespace {

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
    fail("the GPU has compute capability ", major, ".", minor, "; onnxq's kernels need 8.0 or newer (cp.async)");
  return found;
}

bool on_16_bytes(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

}  // namespace

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

MatMul::MatMul(const PackedWeight& packed)
    : k_(packed.k),
      n_(packed.n),
      bits_(packed.bits),
      block_log2_(packed.block_log2),
      zero_stride_(packed.zero_stride),
      element_(packed.element),
      device_(current_device()),
      weight_(packed) {
  for (const Kind kind : {Kind::kDecode, Kind::kMid, Kind::kWide})
    functions_[static_cast<std::size_t>(kind)] =
        find_function(module_name(element_, bits_), kernel_name(kind, block_log2_),
                      launch_of(kind, {element_, bits_, 1, n_}).shared_bytes);
}

void MatMul::launch(Kind kind, const void* activations, void* output, int m, Stream stream) const {
  MatMulArgs args{};
  args.activations = activations;
  args.weights = reinterpret_cast<const void*>(weight_.tiles());
  args.scales = reinterpret_cast<const void*>(weight_.scales());
  args.zeros = reinterpret_cast<const uint8_t*>(weight_.zeros());
  args.output = output;
  args.m = m;
  args.n = n_;
  args.k = k_;
  args.block_log2 = block_log2_;
  args.zero_stride = zero_stride_;
  const int width = element_bytes(element_);
  args.aligned_rows = on_16_bytes(activations) && k_ * int64_t{width} % 16 == 0;
  args.aligned_output = on_16_bytes(output) && n_ * int64_t{width} % 16 == 0;
  void* params[] = {&args};
  const Choice choice = launch_of(kind, {element_, bits_, m, n_});
  const Function function = functions_[static_cast<std::size_t>(kind)];
  check(driver().cuLaunchKernel(function, choice.grid_x, choice.grid_y, 1, choice.threads, 1, 1, choice.shared_bytes,
                                stream, params, nullptr),
        "launching a packed matmul");
}

void MatMul::run(const void* activations, void* output, int64_t m, Stream stream) const {
  if (m == 0) return;
  if (m > std::numeric_limits<int>::max()) fail("A has ", m, " rows, more than the CUDA kernels take");
  launch(kind(static_cast<int>(m)), activations, output, static_cast<int>(m), stream);
}

}  // namespace onnxq::cuda
