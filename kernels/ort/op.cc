#include "ort/op.h"

#include <climits>

#include "ort/boundary.h"

namespace onnxq::ort {
namespace {

const Op& self(const OrtCustomOp* op) { return *static_cast<const Op*>(op); }

// A live kernel: the table is kept because KernelComputeV2 is not given it.
struct Instance {
  Api api;
  std::string where;  // "onnxq PackedMatMul '/fc'", the beginning of every message
  std::unique_ptr<Kernel> kernel;
};

OrtStatus* create_kernel(const OrtCustomOp* op, const OrtApi* table, const OrtKernelInfo* info, void** out) {
  const Api api(table);
  std::string where = "onnxq " + self(op).name;
  return guarded(api, where, [&] {
    where += " '" + api.node_name(info) + "'";
    *out = new Instance{api, where, self(op).create(self(op), api, info)};
  });
}

OrtStatus* compute_kernel(void* kernel, OrtKernelContext* context) {
  const auto* instance = static_cast<const Instance*>(kernel);
  return guarded(instance->api, instance->where, [&] { instance->kernel->compute(context); });
}

}  // namespace

const char* type_name(ElementType type) {
  switch (type) {
    case ElementType::kFloat: return "float";
    case ElementType::kUInt8: return "uint8";
    case ElementType::kInt8: return "int8";
    case ElementType::kInt32: return "int32";
    case ElementType::kInt64: return "int64";
    case ElementType::kFloat16: return "float16";
    case ElementType::kBFloat16: return "bfloat16";
    case ElementType::kUInt4: return "uint4";
    case ElementType::kInt4: return "int4";
    case ElementType::kUInt2: return "uint2";
    case ElementType::kInt2: return "int2";
    case ElementType::kUndefined: break;
  }
  return "undefined";
}

Op::Op(std::string op_name, std::vector<ElementType> in, ElementType out, Traits op_traits, KernelFactory factory)
    : OrtCustomOp{}, name(std::move(op_name)), inputs(std::move(in)), output(out), traits(op_traits), create(factory) {
  version = kApiVersion;
  GetName = [](const OrtCustomOp* op) { return self(op).name.c_str(); };
  GetExecutionProviderType = [](const OrtCustomOp*) { return "CPUExecutionProvider"; };
  GetInputType = [](const OrtCustomOp* op, std::size_t i) { return self(op).inputs[i]; };
  GetInputTypeCount = [](const OrtCustomOp* op) { return self(op).inputs.size(); };
  GetOutputType = [](const OrtCustomOp* op, std::size_t) { return self(op).output; };
  GetOutputTypeCount = [](const OrtCustomOp*) -> std::size_t { return 1; };
  KernelDestroy = [](void* kernel) { delete static_cast<Instance*>(kernel); };
  GetInputCharacteristic = [](const OrtCustomOp*, std::size_t) { return INPUT_OUTPUT_REQUIRED; };
  GetOutputCharacteristic = [](const OrtCustomOp*, std::size_t) { return INPUT_OUTPUT_REQUIRED; };
  GetInputMemoryType = [](const OrtCustomOp*, std::size_t) { return OrtMemTypeDefault; };
  // Asked even of ops that have no variadic input.
  GetVariadicInputMinArity = GetVariadicInputHomogeneity = [](const OrtCustomOp*) { return 1; };
  GetVariadicOutputMinArity = GetVariadicOutputHomogeneity = [](const OrtCustomOp*) { return 1; };
  CreateKernelV2 = create_kernel;
  KernelComputeV2 = compute_kernel;
  GetStartVersion = [](const OrtCustomOp*) { return 1; };
  GetEndVersion = [](const OrtCustomOp*) { return INT_MAX; };
}

std::string Op::signature() const {
  std::string text = name + "(";
  for (std::size_t i = 0; i < inputs.size(); ++i) text += std::string(i ? ", " : "") + type_name(inputs[i]);
  return text + ") -> " + type_name(output);
}

}  // namespace onnxq::ort
