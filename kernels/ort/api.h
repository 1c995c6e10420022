// ONNX Runtime's function table as C++: typed calls, tensors as (type, shape, data), errors as Error.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ort/c_api.h"

namespace onnxq::ort {

// A tensor that onnxruntime owns. `data` is writable only for outputs.
struct Tensor {
  ElementType type = ElementType::kUndefined;
  std::vector<int64_t> shape;
  void* data = nullptr;

  template <class T>
  const T* as() const {
    return static_cast<const T*>(data);
  }
};

// "[2, 3]", for messages.
std::string to_string(const std::vector<int64_t>& shape);

class Api {
 public:
  explicit Api(const OrtApi* table) : table_(reinterpret_cast<void* const*>(table)) {}

  OrtStatus* make_status(OrtErrorCode code, const std::string& message) const;

  // Registration.
  OrtCustomOpDomain* create_domain(const char* name) const;
  void add_op(OrtCustomOpDomain* domain, const OrtCustomOp* op) const;
  void add_domain(OrtSessionOptions* options, OrtCustomOpDomain* domain) const;

  // At kernel creation.
  std::string node_name(const OrtKernelInfo* info) const;
  std::optional<int64_t> int_attribute(const OrtKernelInfo* info, const char* name) const;
  std::optional<std::string> string_attribute(const OrtKernelInfo* info, const char* name) const;
  std::optional<std::string> session_config(const OrtKernelInfo* info, const char* key) const;
  std::optional<Tensor> constant_input(const OrtKernelInfo* info, std::size_t index) const;

  // At run time.
  Tensor input(const OrtKernelContext* context, std::size_t index) const;
  Tensor output(OrtKernelContext* context, std::size_t index, const std::vector<int64_t>& shape) const;
  // The CUDA stream that this node's work belongs on; null on the CPU provider.
  void* gpu_stream(const OrtKernelContext* context) const;
  // Calls task(state, i) for every i < count on the session's intra-op threads.
  void parallel_for(const OrtKernelContext* context, std::size_t count, void (*task)(void*, std::size_t),
                    void* state) const;

 private:
  template <class Result, class... Args>
  Result call(Slot slot, Args... args) const {
    return reinterpret_cast<Result (*)(Args...)>(table_[static_cast<std::size_t>(slot)])(args...);
  }
  // Calls a function that answers with an OrtStatus*; null means success.
  template <class... Args>
  OrtStatus* status_of(Slot slot, Args... args) const {
    return call<OrtStatus*>(slot, args...);
  }
  void check(OrtStatus* status) const;     // throws Error with onnxruntime's message
  bool succeeded(OrtStatus* status) const; // releases a failure: used where absence is an answer
  Tensor describe(const OrtValue* value) const;

  void* const* table_;
};

}  // namespace onnxq::ort
