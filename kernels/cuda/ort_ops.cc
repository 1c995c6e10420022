#include "cuda/ort_ops.h"

#include "cuda/gather.h"
#include "cuda/matmul.h"
#include "error.h"
#include "ort/weight_inputs.h"

namespace onnxq::cuda {
namespace {

using ort::Api;
using ort::ElementType;
using ort::Op;
using ort::OrtKernelContext;
using ort::OrtKernelInfo;
using ort::Tensor;

Element element_of(ElementType type) {
  switch (type) {
    case ElementType::kFloat16: return Element::kHalf;
    case ElementType::kBFloat16: return Element::kBFloat16;
    case ElementType::kFloat: return Element::kFloat;
    default: fail("activations of type ", ort::type_name(type), " have no CUDA kernel");
  }
}

// The weight of a node, as repacking reads it.
class NodeWeight final : public Weight {
 public:
  explicit NodeWeight(const cpu::WeightSource& source) : source_(source) {
    k = source.k;
    n = source.n;
    block = source.block;
    bits = source.bits();
    has_zero_points = source.zero_points != nullptr;
  }
  int code(int64_t row, int64_t column) const override { return source_.code(row, column); }
  int zero_point(int64_t block_row, int64_t column) const override { return source_.zero_point(block_row, column); }
  float scale(int64_t block_row, int64_t column) const override { return source_.scale(block_row, column); }

 private:
  const cpu::WeightSource& source_;
};

// The same of a codebook node.
class NodeCodebook final : public Weight {
 public:
  explicit NodeCodebook(const cpu::CodebookSource& source) : indices_(source.indices) {
    k = indices_.k;
    n = indices_.n;
    block = indices_.block;
    bits = indices_.bits();
    for (int i = 0; i < source.entries; ++i) codebook.push_back(source.value(i));
  }
  int code(int64_t row, int64_t column) const override { return indices_.code(row, column); }
  int zero_point(int64_t, int64_t) const override { return 0; }
  float scale(int64_t block_row, int64_t column) const override { return indices_.scale(block_row, column); }

 private:
  const cpu::WeightSource& indices_;
};

// The constant inputs of a node that hold its weight.
struct WeightInputs {
  std::size_t codes;      // codes, or the low plane
  std::size_t high = 0;   // the high plane, 0 where there is none
  std::size_t scales;
  // zero points follow the scales
};

PackedWeight read_weight(const Op& op, const Api& api, const OrtKernelInfo* info, const WeightInputs& at) {
  const int block_size = ort::read_block_size(api, info);
  const Tensor codes = ort::require_constant(api, info, at.codes, "the weight");
  const Tensor scales = ort::require_constant(api, info, at.scales, "scales");
  Tensor high, zeros;
  if (op.traits.zero_points) zeros = ort::require_constant(api, info, at.scales + 1, "zero_points");
  const Tensor* zero_points = op.traits.zero_points ? &zeros : nullptr;
  if (at.high == 0) {
    const cpu::WeightSource source =
        ort::check_weight({&codes, &scales, zero_points}, block_size, op.traits.transposed);
    return repack(NodeWeight(source), element_of(op.output));
  }
  high = ort::require_constant(api, info, at.high, "the high plane");
  const cpu::WeightSource source =
      ort::check_planes({op.traits.bits, &codes, &high, &scales, zero_points}, ort::read_rows(api, info), block_size);
  return repack(NodeWeight(source), element_of(op.output));
}

int64_t product_of(const std::vector<int64_t>& shape, std::size_t count) {
  int64_t product = 1;
  for (std::size_t i = 0; i < count; ++i) product *= shape[i];
  return product;
}

class MatMulKernel final : public ort::Kernel {
 public:
  MatMulKernel(const Api& api, const PackedWeight& packed) : api_(api), matmul_(packed) {}

  void compute(OrtKernelContext* context) const override {
    const Tensor a = api_.input(context, 0);
    if (a.shape.empty() || a.shape.back() != matmul_.k())
      fail("A has shape ", ort::to_string(a.shape), ", expected [.., ", matmul_.k(), "]");
    std::vector<int64_t> shape = a.shape;
    shape.back() = matmul_.n();
    const Tensor y = api_.output(context, 0, shape);
    matmul_.run(a.data, y.data, product_of(a.shape, a.shape.size() - 1), api_.gpu_stream(context));
  }

 private:
  Api api_;
  MatMul matmul_;
};

class GatherKernel final : public ort::Kernel {
 public:
  GatherKernel(const Api& api, const PackedWeight& packed) : api_(api), gather_(packed) {}

  void compute(OrtKernelContext* context) const override {
    const Tensor indices = api_.input(context, 1);
    std::vector<int64_t> shape = indices.shape;
    shape.push_back(gather_.k());
    const Tensor y = api_.output(context, 0, shape);
    gather_.run(indices.data, indices.type == ElementType::kInt64, y.data,
                product_of(indices.shape, indices.shape.size()), api_.gpu_stream(context));
  }

 private:
  Api api_;
  Gather gather_;
};

// Inputs: A, codes, scales (, zero_points).
std::unique_ptr<ort::Kernel> create_matmul(const Op& op, const Api& api, const OrtKernelInfo* info) {
  return std::make_unique<MatMulKernel>(api, read_weight(op, api, info, {.codes = 1, .scales = 2}));
}

// Inputs: A, low, high, scales (, zero_points).
std::unique_ptr<ort::Kernel> create_planes(const Op& op, const Api& api, const OrtKernelInfo* info) {
  return std::make_unique<MatMulKernel>(api, read_weight(op, api, info, {.codes = 1, .high = 2, .scales = 3}));
}

// Inputs: A, low (, high), codebook, scales.
std::unique_ptr<ort::Kernel> create_codebook(const Op& op, const Api& api, const OrtKernelInfo* info) {
  const bool two_planes = op.traits.bits == 3;
  const std::size_t at = two_planes ? 3 : 2;
  const Tensor low = ort::require_constant(api, info, 1, "low");
  const Tensor high = two_planes ? ort::require_constant(api, info, 2, "high") : Tensor{};
  const Tensor codebook = ort::require_constant(api, info, at, "codebook");
  const Tensor scales = ort::require_constant(api, info, at + 1, "scales");
  const cpu::CodebookSource source =
      ort::check_codebook({op.traits.bits, &low, two_planes ? &high : nullptr, &scales, nullptr}, codebook,
                          ort::read_rows(api, info), ort::read_block_size(api, info));
  if (source.dim != 1)
    fail("codebook has shape ", ort::to_string(codebook.shape),
         ": CUDA kernels look up scalars (a dim of 1); run this model without CUDAExecutionProvider");
  return std::make_unique<MatMulKernel>(api, repack(NodeCodebook(source), element_of(op.output)));
}

// Inputs: data, indices, scales (, zero_points).
std::unique_ptr<ort::Kernel> create_gather(const Op& op, const Api& api, const OrtKernelInfo* info) {
  return std::make_unique<GatherKernel>(api, read_weight(op, api, info, {.codes = 0, .scales = 2}));
}

auto create_of(const std::string& name) {
  if (name.starts_with("PackedGather")) return create_gather;
  if (name.starts_with("PackedMatMulBits")) return create_planes;
  return name.starts_with("CodebookMatMul") ? create_codebook : create_matmul;
}

// Weights, scales, codebooks and zero points stay in CPU memory, where repacking reads them: onnxruntime then makes no
// device copy of its own, and the device holds a weight once. Activations and indices come on the device.
std::unique_ptr<Op> cuda_op(const Op& cpu_op, std::vector<ElementType> inputs, ElementType output) {
  [[maybe_unused]] const bool gather = cpu_op.name.starts_with("PackedGather");
  auto op = std::make_unique<Op>(cpu_op.name, std::move(inputs), output, cpu_op.traits, create_of(cpu_op.name));
#ifndef ONNXQ_CUDA_EMULATED
  op->GetExecutionProviderType = [](const ort::OrtCustomOp*) { return "CUDAExecutionProvider"; };
  // The input that is not a constant: indices of a gather, else activations.
  op->GetInputMemoryType = gather ? [](const ort::OrtCustomOp*, std::size_t i) {
    return i == 1 ? ort::OrtMemTypeDefault : ort::OrtMemTypeCPUInput;
  } : [](const ort::OrtCustomOp*, std::size_t i) {
    return i == 0 ? ort::OrtMemTypeDefault : ort::OrtMemTypeCPUInput;
  };
#endif
  return op;
}

}  // namespace

const std::vector<std::unique_ptr<Op>>& cuda_ops() {
  static const std::vector<std::unique_ptr<Op>> ops = [] {
    std::vector<std::unique_ptr<Op>> list;
    for (const auto& cpu_op : ort::all_ops()) {
      if (cpu_op->name == "CodebookMatMul8") continue;  // up to 256 entries, not 16: CPU only, see README.md
      list.push_back(cuda_op(*cpu_op, cpu_op->inputs, cpu_op->output));
      if (cpu_op->name.starts_with("PackedGather") || cpu_op->output != ElementType::kFloat16) continue;
      std::vector<ElementType> inputs = cpu_op->inputs;
      inputs[0] = ElementType::kBFloat16;
      list.push_back(cuda_op(*cpu_op, std::move(inputs), ElementType::kBFloat16));
    }
    return list;
  }();
  return ops;
}

}  // namespace onnxq::cuda
