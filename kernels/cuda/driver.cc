#include "cuda/driver.h"

#include <dlfcn.h>

#include <cstdlib>
#include <mutex>
#include <optional>

#include "error.h"

namespace onnxq::cuda {
namespace {

Driver open_driver() {
  const std::string library = driver_library();
  void* handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr)
    fail("no CUDA driver: ", dlerror(), "; install the NVIDIA driver, or use providers=['CPUExecutionProvider']");
  Driver found{};
  const auto find = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(handle, name));
    if (function == nullptr) fail("the CUDA driver ", library, " lacks ", name, "; update the NVIDIA driver");
  };
#define ONNXQ_FIND(name) find(found.name, #name)
  ONNXQ_FIND(cuInit);
  ONNXQ_FIND(cuGetErrorString);
  ONNXQ_FIND(cuCtxGetCurrent);
  ONNXQ_FIND(cuCtxSetCurrent);
  ONNXQ_FIND(cuCtxGetDevice);
  ONNXQ_FIND(cuDevicePrimaryCtxRetain);
  ONNXQ_FIND(cuDeviceGetAttribute);
  ONNXQ_FIND(cuModuleLoadData);
  ONNXQ_FIND(cuModuleGetFunction);
  ONNXQ_FIND(cuFuncSetAttribute);
  ONNXQ_FIND(cuMemAlloc_v2);
  ONNXQ_FIND(cuMemFree_v2);
  ONNXQ_FIND(cuMemcpyHtoD_v2);
  ONNXQ_FIND(cuLaunchKernel);
#undef ONNXQ_FIND
  if (const Result result = found.cuInit(0); result != 0)
    fail("the CUDA driver does not start (cuInit: error ", result, "); is there a GPU? nvidia-smi tells");
  return found;
}

}  // namespace

std::string driver_library() {
#ifdef ONNXQ_CUDA_EMULATED
  if (const char* named = std::getenv("ONNXQ_CUDA_DRIVER")) return named;
#endif
  return "libcuda.so.1";
}

const Driver& driver() {
  static std::mutex mutex;
  static std::optional<Driver> opened;
  const std::lock_guard lock(mutex);
  if (!opened) opened = open_driver();
  return *opened;
}

void check(Result result, const char* what) {
  if (result == 0) return;
  const char* text = nullptr;
  driver().cuGetErrorString(result, &text);
  fail(what, ": ", text != nullptr ? text : "unknown error", " (CUDA error ", result, ")");
}

}  // namespace onnxq::cuda
