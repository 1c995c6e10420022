// What the shared library exports: onnxruntime's entry point, and two questions for `onnxq doctor`.
#include "cpu/isa.h"
#ifdef ONNXQ_CUDA
#include "cuda/ort_ops.h"
#endif
#include "ort/boundary.h"
#include "ort/op.h"

#if defined(_WIN32)
#define ONNXQ_EXPORT extern "C" __declspec(dllexport)
#else
#define ONNXQ_EXPORT extern "C" __attribute__((visibility("default")))
#endif

namespace onnxq::ort {

// Called by SessionOptions.register_custom_ops_library.
ONNXQ_EXPORT OrtStatus* RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) {
  const OrtApi* table = base->GetApi(kApiVersion);
  if (table == nullptr) {
    // CreateStatus is in every version of the table; version 1 is always served.
    const std::string have = base->GetVersionString();
    return Api(base->GetApi(1)).make_status(ORT_FAIL, "onnxq needs onnxruntime 1.24 or newer; this is " + have);
  }
  const Api api(table);
  return guarded(api, "onnxq", [&] {
    cpu::select_isa();  // a wrong ONNXQ_ISA is reported here, not at the first node
    // Session options keep a bare pointer, so the one domain lives as long as the process.
    static OrtCustomOpDomain* const domain = [&api] {
      OrtCustomOpDomain* created = api.create_domain("onnxq");
#ifdef ONNXQ_CUDA
      for (const auto& op : cuda::cuda_ops()) api.add_op(created, op.get());
#endif
#ifndef ONNXQ_CUDA_EMULATED  // there the CUDA kernels stand on the CPU provider
      for (const auto& op : all_ops()) api.add_op(created, op.get());
#endif
      return created;
    }();
    api.add_domain(options, domain);
  });
}

// The instruction set that kernels of this process use ("avx512vnni"), or why there is none
// ("error: ..."). The text lives as long as the process.
ONNXQ_EXPORT const char* onnxq_isa() {
  static const std::string answer = [] {
    try {
      return std::string(cpu::isa_name(cpu::select_isa()));
    } catch (const Error& error) {
      return std::string("error: ") + error.what();
    }
  }();
  return answer.c_str();
}

// The GPUs that this build has CUDA kernels for ("compute capabilities 80, ... and PTX"), or "none: ...".
ONNXQ_EXPORT const char* onnxq_cuda() {
#ifdef ONNXQ_CUDA
  return ONNXQ_CUDA;
#else
  return "none: built without nvcc";
#endif
}

// The signatures of all registered ops, one a line.
ONNXQ_EXPORT const char* onnxq_signatures() {
  static const std::string text = [] {
    std::string lines;
    for (const auto& op : all_ops()) lines += op->signature() + "\n";
    return lines;
  }();
  return text.c_str();
}

}  // namespace onnxq::ort
