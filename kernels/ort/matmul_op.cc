#include "ort/matmul_op.h"

#include "cpu/pages.h"
#include "cpu/product.h"
#include "error.h"
#include "ort/weight_inputs.h"

namespace onnxq::ort {
namespace {

// Overrides the attribute `compute` of every node of a session.
constexpr const char* kComputeKey = "onnxq.compute";

// onnxruntime's intra-op threads, for the length of one call.
class OrtThreads final : public cpu::Parallel {
 public:
  OrtThreads(const Api& api, const OrtKernelContext* context) : api_(api), context_(context) {}

 protected:
  void run(std::size_t count, void (*task)(void*, std::size_t), void* state) const override {
    api_.parallel_for(context_, count, task, state);
  }

 private:
  const Api& api_;
  const OrtKernelContext* context_;
};

// The file's copy of a weight has been repacked; what is read again (by a gather, or another session)
// comes back from the file.
void release(const Tensor& tensor, int64_t bytes) {
  cpu::advise_unused(tensor.data, static_cast<std::size_t>(bytes));
}

cpu::Compute read_compute(const Api& api, const OrtKernelInfo* info) {
  const std::string attribute = api.string_attribute(info, "compute").value_or("int8");
  const std::string mode = api.session_config(info, kComputeKey).value_or(attribute);
  if (mode == "int8") return cpu::Compute::kInt8;
  if (mode == "bf16") return cpu::Compute::kBfloat16;
  if (mode == "float") return cpu::Compute::kFloat;
  fail("compute='", mode, "' is not one of int8, bf16, float");
}

class MatMul final : public Kernel {
 public:
  MatMul(const Api& api, cpu::Product product) : api_(api), product_(std::move(product)) {}

  void compute(OrtKernelContext* context) const override {
    const Tensor a = api_.input(context, 0);
    const cpu::PackedWeight& weight = product_.weight();
    if (a.shape.empty() || a.shape.back() != weight.k)
      fail("A has shape ", to_string(a.shape), ", expected [.., ", weight.k, "]");
    int64_t rows = 1;
    for (std::size_t i = 0; i + 1 < a.shape.size(); ++i) rows *= a.shape[i];
    std::vector<int64_t> shape = a.shape;
    shape.back() = weight.n;
    const Tensor y = api_.output(context, 0, shape);
    const bool half = a.type == ElementType::kFloat16;
    product_.multiply({a.data, half}, {y.data, half}, rows, OrtThreads(api_, context),
                      cpu::kernels_for(cpu::select_isa()));
  }

 private:
  Api api_;
  cpu::Product product_;
};

}  // namespace

std::unique_ptr<Kernel> create_matmul(const Op& op, const Api& api, const OrtKernelInfo* info) {
  const int block_size = read_block_size(api, info);
  const cpu::Compute compute = read_compute(api, info);
  const Tensor codes = require_constant(api, info, 1, "the weight");
  const Tensor scales = require_constant(api, info, 2, "scales");
  Tensor zero_points;
  if (op.traits.zero_points) zero_points = require_constant(api, info, 3, "zero_points");
  const WeightTensors tensors{&codes, &scales, op.traits.zero_points ? &zero_points : nullptr};
  const cpu::WeightSource source = check_weight(tensors, block_size, op.traits.transposed);
  auto kernel = std::make_unique<MatMul>(api, cpu::Product(source, compute));
  release(codes, source.k * source.n * source.bits() / 8);
  return kernel;
}

std::unique_ptr<Kernel> create_planes(const Op& op, const Api& api, const OrtKernelInfo* info) {
  const int block_size = read_block_size(api, info);
  const cpu::Compute compute = read_compute(api, info);
  const Tensor low = require_constant(api, info, 1, "low");
  const Tensor high = require_constant(api, info, 2, "high");
  const Tensor scales = require_constant(api, info, 3, "scales");
  Tensor zero_points;
  if (op.traits.zero_points) zero_points = require_constant(api, info, 4, "zero_points");
  const PlaneTensors tensors{op.traits.bits, &low, &high, &scales, op.traits.zero_points ? &zero_points : nullptr};
  const cpu::WeightSource source = check_planes(tensors, read_rows(api, info), block_size);
  auto kernel = std::make_unique<MatMul>(api, cpu::Product(source, compute));
  release(low, low.shape[0] * low.shape[1]);
  release(high, high.shape[0] * high.shape[1]);
  return kernel;
}

std::unique_ptr<Kernel> create_codebook(const Op& op, const Api& api, const OrtKernelInfo* info) {
  const int block_size = read_block_size(api, info);
  read_compute(api, info);  // every mode is served in float, but a misspelt one is an error
  std::size_t next = 1;
  const Tensor low = require_constant(api, info, next++, "low");
  Tensor high;
  if (op.traits.bits == 3) high = require_constant(api, info, next++, "high");
  const Tensor codebook = require_constant(api, info, next++, "codebook");
  const Tensor scales = require_constant(api, info, next++, "scales");
  const PlaneTensors tensors{op.traits.bits, &low, op.traits.bits == 3 ? &high : nullptr, &scales, nullptr};
  return std::make_unique<MatMul>(
      api, cpu::Product(check_codebook(tensors, codebook, read_rows(api, info), block_size)));
}

}  // namespace onnxq::ort
