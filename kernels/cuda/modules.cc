#include "cuda/modules.h"

#include <map>
#include <mutex>

#include "error.h"

namespace onnxq::cuda {
namespace {

const void* find_image(const std::string& module) {
  for (const Image* image = kImages; image->module != nullptr; ++image)
    if (module == image->module) return image->fatbin;
  fail("this build has no CUDA kernels for ", module);
}

// Modules stay loaded for the life of the process: unloading one at exit, after the driver, would crash.
Module load_module(const std::string& name) {
  static std::mutex mutex;
  static std::map<std::pair<Context, std::string>, Module> loaded;
  const std::lock_guard lock(mutex);
  Module& module = loaded[{current_context(), name}];
  if (module == nullptr)
    check(driver().cuModuleLoadData(&module, find_image(name)),
          "loading the CUDA kernels (is the GPU sm_80 or newer?)");
  return module;
}

}  // namespace

Context current_context() {
  Context context = nullptr;
  check(driver().cuCtxGetCurrent(&context), "cuCtxGetCurrent");
  if (context != nullptr) return context;
  check(driver().cuDevicePrimaryCtxRetain(&context, 0), "cuDevicePrimaryCtxRetain");
  check(driver().cuCtxSetCurrent(context), "cuCtxSetCurrent");
  return context;
}

Function find_function(const std::string& module, const std::string& kernel, unsigned shared_bytes) {
  const std::string name = "onnxq_" + module + "_" + kernel;
  Function function = nullptr;
  check(driver().cuModuleGetFunction(&function, load_module(module), name.c_str()), name.c_str());
  if (shared_bytes > 0)
    check(driver().cuFuncSetAttribute(function, kMaxDynamicSharedBytes, static_cast<int>(shared_bytes)), name.c_str());
  return function;
}

}  // namespace onnxq::cuda
