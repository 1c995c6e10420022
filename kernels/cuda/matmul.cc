#include "cuda/matmul.h"

#include <cstring>
#include <limits>

#include "cuda/modules.h"
#include "error.h"

namespace onnxq::cuda {

MatMul::MatMul(const PackedWeight& packed)
    : k_(packed.k),
      n_(packed.n),
      bits_(packed.bits),
      block_log2_(packed.block_log2),
      zero_stride_(packed.zero_stride),
      element_(packed.element),
      table_(packed.table),
      device_(current_device()),
      weight_(DeviceWeight::upload(packed)) {
  for (const Kind kind : {Kind::kDecode, Kind::kMid, Kind::kWide})
    functions_[static_cast<std::size_t>(kind)] =
        find_function(module_name(element_, bits_, packed.codebook), kernel_name(kind, block_log2_, zero_stride_ != 0),
                      launch_of(kind, {element_, bits_, 1, n_}).shared_bytes);
}

void MatMul::launch(Kind kind, const void* activations, void* output, int m, Stream stream) const {
  const int64_t width = element_bytes(element_);
  CodebookArgs args{};  // begins with the MatMulArgs that kernels of integers take
  args.activations = activations;
  args.weights = weight_->tiles();
  args.scales = weight_->scales();
  args.zeros = weight_->zeros();
  args.output = output;
  args.m = m;
  args.n = n_;
  args.k = k_;
  args.block_log2 = block_log2_;
  args.zero_stride = zero_stride_;
  args.aligned_rows = rows_on_16_bytes(activations, k_ * width);
  args.aligned_output = rows_on_16_bytes(output, n_ * width);
  static_assert(sizeof args.table == sizeof table_);
  std::memcpy(args.table, table_.data(), sizeof args.table);
  void* params[] = {&args};
  const Choice choice = launch_of(kind, {element_, bits_, m, n_});
  check(driver().cuLaunchKernel(functions_[static_cast<std::size_t>(kind)], choice.grid_x, choice.grid_y, 1,
                                choice.threads, 1, 1, choice.shared_bytes, stream, params, nullptr),
        "launching a packed matmul");
}

void MatMul::run(const void* activations, void* output, int64_t m, Stream stream) const {
  if (m == 0) return;
  if (m > std::numeric_limits<int>::max()) fail("A has ", m, " rows, more than the CUDA kernels take");
  launch(kind(static_cast<int>(m)), activations, output, static_cast<int>(m), stream);
}

}  // namespace onnxq::cuda
