#include "ort/api.h"

#include "error.h"

namespace onnxq::ort {

std::string to_string(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

OrtStatus* Api::make_status(OrtErrorCode code, const std::string& message) const {
  return call<OrtStatus*>(Slot::CreateStatus, code, message.c_str());
}

void Api::check(OrtStatus* status) const {
  if (status == nullptr) return;
  const std::string message = call<const char*>(Slot::GetErrorMessage, static_cast<const OrtStatus*>(status));
  call<void>(Slot::ReleaseStatus, status);
  throw Error(message);
}

bool Api::succeeded(OrtStatus* status) const {
  if (status != nullptr) call<void>(Slot::ReleaseStatus, status);
  return status == nullptr;
}

OrtCustomOpDomain* Api::create_domain(const char* name) const {
  OrtCustomOpDomain* domain = nullptr;
  check(status_of(Slot::CreateCustomOpDomain, name, &domain));
  return domain;
}

void Api::add_op(OrtCustomOpDomain* domain, const OrtCustomOp* op) const {
  check(status_of(Slot::CustomOpDomain_Add, domain, op));
}

void Api::add_domain(OrtSessionOptions* options, OrtCustomOpDomain* domain) const {
  check(status_of(Slot::AddCustomOpDomain, options, domain));
}

std::string Api::node_name(const OrtKernelInfo* info) const {
  std::size_t size = 0;
  // The first call only asks for the size; depending on the version it also reports "too small".
  succeeded(status_of(Slot::KernelInfo_GetNodeName, info, static_cast<char*>(nullptr), &size));
  std::string name(size, '\0');
  if (size > 0) check(status_of(Slot::KernelInfo_GetNodeName, info, name.data(), &size));
  return name.c_str();  // drops the terminating zero that `size` counts
}

std::optional<int64_t> Api::int_attribute(const OrtKernelInfo* info, const char* name) const {
  int64_t value = 0;
  if (!succeeded(status_of(Slot::KernelInfoGetAttribute_int64, info, name, &value))) return std::nullopt;
  return value;
}

std::optional<std::string> Api::string_attribute(const OrtKernelInfo* info, const char* name) const {
  std::size_t size = 0;
  succeeded(status_of(Slot::KernelInfoGetAttribute_string, info, name, static_cast<char*>(nullptr), &size));
  if (size == 0) return std::nullopt;
  std::string value(size, '\0');
  check(status_of(Slot::KernelInfoGetAttribute_string, info, name, value.data(), &size));
  return value.c_str();
}

std::optional<std::string> Api::session_config(const OrtKernelInfo* info, const char* key) const {
  OrtKeyValuePairs* pairs = nullptr;
  check(status_of(Slot::KernelInfo_GetConfigEntries, info, &pairs));
  const char* value = call<const char*>(Slot::GetKeyValue, static_cast<const OrtKeyValuePairs*>(pairs), key);
  std::optional<std::string> copy;
  if (value != nullptr) copy = value;
  call<void>(Slot::ReleaseKeyValuePairs, pairs);
  return copy;
}

Tensor Api::describe(const OrtValue* value) const {
  Tensor tensor;
  OrtTensorTypeAndShapeInfo* info = nullptr;
  check(status_of(Slot::GetTensorTypeAndShape, value, &info));
  const auto* read_only = static_cast<const OrtTensorTypeAndShapeInfo*>(info);
  std::size_t rank = 0;
  OrtStatus* status = status_of(Slot::GetTensorElementType, read_only, &tensor.type);
  if (status == nullptr) status = status_of(Slot::GetDimensionsCount, read_only, &rank);
  tensor.shape.resize(rank);
  if (status == nullptr) status = status_of(Slot::GetDimensions, read_only, tensor.shape.data(), rank);
  call<void>(Slot::ReleaseTensorTypeAndShapeInfo, info);
  check(status);
  check(status_of(Slot::GetTensorMutableData, const_cast<OrtValue*>(value), &tensor.data));
  return tensor;
}

std::optional<Tensor> Api::constant_input(const OrtKernelInfo* info, std::size_t index) const {
  int is_constant = 0;
  const OrtValue* value = nullptr;
  check(status_of(Slot::KernelInfoGetConstantInput_tensor, info, index, &is_constant, &value));
  if (is_constant == 0 || value == nullptr) return std::nullopt;
  return describe(value);
}

Tensor Api::input(const OrtKernelContext* context, std::size_t index) const {
  const OrtValue* value = nullptr;
  check(status_of(Slot::KernelContext_GetInput, context, index, &value));
  return describe(value);
}

Tensor Api::output(OrtKernelContext* context, std::size_t index, const std::vector<int64_t>& shape) const {
  OrtValue* value = nullptr;
  check(status_of(Slot::KernelContext_GetOutput, context, index, shape.data(), shape.size(), &value));
  return describe(value);
}

void* Api::gpu_stream(const OrtKernelContext* context) const {
  void* stream = nullptr;
  check(status_of(Slot::KernelContext_GetGPUComputeStream, context, &stream));
  return stream;
}

void Api::parallel_for(const OrtKernelContext* context, std::size_t count, void (*task)(void*, std::size_t),
                       void* state) const {
  constexpr std::size_t kOneTaskPerCall = 0;  // "num_batch": 0 hands out single indices, dynamically
  check(status_of(Slot::KernelContext_ParallelFor, context, task, count, kOneTaskPerCall, state));
}

}  // namespace onnxq::ort
