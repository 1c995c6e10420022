#include "cuda/gather.h"

#include <limits>

#include "cuda/modules.h"
#include "error.h"

namespace onnxq::cuda {
namespace {
constexpr unsigned kThreads = 128;  // kGatherThreads of device/gather.cuh
}

Gather::Gather(const PackedWeight& packed)
    : k_(packed.k),
      rows_(packed.n),
      block_log2_(packed.block_log2),
      zero_stride_(packed.zero_stride),
      element_(packed.element),
      weight_((current_device(), DeviceWeight::upload(packed))),
      function_(find_function(module_name(packed.element, packed.bits, false), "gather", 0)) {}

void Gather::run(const void* indices, bool wide, void* output, int64_t count, Stream stream) const {
  if (count == 0) return;
  if (count > std::numeric_limits<int>::max())
    fail("indices has ", count, " elements, more than the CUDA kernel takes");
  GatherArgs args{};
  args.indices = indices;
  args.weights = weight_->tiles();
  args.scales = weight_->scales();
  args.zeros = weight_->zeros();
  args.output = output;
  args.rows = static_cast<int>(count);
  args.vocabulary = rows_;
  args.k = k_;
  args.block_log2 = block_log2_;
  args.zero_stride = zero_stride_;
  args.wide_indices = wide;
  args.aligned_output = rows_on_16_bytes(output, k_ * int64_t{element_bytes(element_)});
  void* params[] = {&args};
  const auto ctas = static_cast<unsigned>(count);
  check(driver().cuLaunchKernel(function_, ctas, 1, 1, kThreads, 1, 1, 0, stream, params, nullptr),
        "launching a packed gather");
}

}  // namespace onnxq::cuda
