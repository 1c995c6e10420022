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

// Inputs `codes`, `codes + 1 + gap` (scales) and the next (zero points) of a node, on the device.
PackedWeight read_weight(const Op& op, const Api& api, const OrtKernelInfo* info, std::size_t codes, std::size_t scales) {
  const Tensor code_tensor = ort::require_constant(api, info, codes, "the weight");
  const Tensor scale_tensor = ort::require_constant(api, info, scales, "scales");
  Tensor zeros;
  if (op.traits.zero_points) zeros = ort::require_constant(api, info, scales + 1, "zero_points");
  const ort::WeightTensors tensors{&code_tensor, &scale_tensor, op.traits.zero_points ? &zeros : nullptr};
  const cpu::WeightSource source = ort::check_weight(tensors, ort::read_block_size(api, info), op.traits.transposed);
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

std::unique_ptr<ort::Kernel> create_matmul(const Op& op, const Api& api, const OrtKernelInfo* info) {
  return std::make_unique<MatMulKernel>(api, read_weight(op, api, info, 1, 2));
}

// Inputs: data, indices, scales (, zero_points).
std::unique_ptr<ort::Kernel> create_gather(const Op& op, const Api& api, const OrtKernelInfo* info) {
  return std::make_unique<GatherKernel>(api, read_weight(op, api, info, 0, 2));
}

// Weights, scales and zero points stay in CPU memory, where repacking reads them: onnxruntime then makes no
// device copy of its own, and the device holds a weight once. Activations and indices come on the device.
std::unique_ptr<Op> cuda_op(const std::string& name, std::vector<ElementType> inputs, ElementType output,
                            ort::Traits traits) {
  const bool gather = name.starts_with("PackedGather");
  auto op = std::make_unique<Op>(name, std::move(inputs), output, traits, gather ? create_gather : create_matmul);
#ifndef ONNXQ_CUDA_EMULATED
  op->GetExecutionProviderType = [](const ort::OrtCustomOp*) { return "CUDAExecutionProvider"; };
#endif
  op->GetInputMemoryType = gather ? [](const ort::OrtCustomOp*, std::size_t i) {
    return i == 1 ? ort::OrtMemTypeDefault : ort::OrtMemTypeCPUInput;
  } : [](const ort::OrtCustomOp*, std::size_t i) {
    return i == 0 ? ort::OrtMemTypeDefault : ort::OrtMemTypeCPUInput;
  };
  return op;
}

}  // namespace

const std::vector<std::unique_ptr<Op>>& cuda_ops() {
  static const std::vector<std::unique_ptr<Op>> ops = [] {
    std::vector<std::unique_ptr<Op>> list;
    for (const auto& cpu_op : ort::all_ops()) {
      const bool gather = cpu_op->name.starts_with("PackedGather");
      list.push_back(cuda_op(cpu_op->name, cpu_op->inputs, cpu_op->output, cpu_op->traits));
      if (gather || cpu_op->output != ElementType::kFloat16) continue;
      std::vector<ElementType> inputs = cpu_op->inputs;
      inputs[0] = ElementType::kBFloat16;
      list.push_back(cuda_op(cpu_op->name, inputs, ElementType::kBFloat16, cpu_op->traits));
    }
    return list;
  }();
  return ops;
}

}  // namespace onnxq::cuda
