// An emulated libcuda: the driver functions that the library calls, served by the emulator. Only test
// builds can be told to load it (driver.cc of kernels/cuda, ONNXQ_CUDA_EMULATED).
//
// Modules are not read from the image that is given: a kernel's name says which translated module holds it
// ("onnxq_half_4_mid" is in <kernels>/half_4.so), and the same PTX is inside the image.
#include <dlfcn.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>

#include "emulator/counters.h"
#include "emulator/global_memory.h"
#include "emulator/machine.h"

#define EMU_API extern "C" __attribute__((visibility("default")))

namespace {

constexpr int kInvalidValue = 1, kNotInitialised = 3, kNotFound = 500, kLaunchFailed = 719, kInvalidImage = 200;
constexpr uint32_t kFatbinMagic = 0xba55ed50;

struct LoadedFunction {
  const emu::Kernel* kernel;
  int dynamic_shared_limit = 48 * 1024;
};

struct State {
  std::mutex mutex;  // the emulator runs one launch at a time
  std::string kernels;
  std::map<std::string, LoadedFunction> functions;  // by path + name
  emu::Options options;
  std::string messages;
  uint64_t faults = 0, launches = 0;
  std::string last_kernel;
  int multiprocessors = 108;
  bool initialised = false;
  std::vector<emu::SiteCount> counts;
  const emu::Kernel* counted = nullptr;
};

State& state() {
  static State s;
  if (s.kernels.empty()) {
    if (const char* named = std::getenv("ONNXQ_EMULATED_KERNELS")) s.kernels = named;
    // onnxruntime's CPU buffers are not allocations of ours: their bounds are unknown.
    if (std::getenv("ONNXQ_EMULATED_HOST_MEMORY") != nullptr) s.options.strict_global = false;
  }
  return s;
}

// "onnxq_half_4_mid" -> "half_4": the module is what lies before the third underscore.
std::string module_of(const std::string& name) {
  const size_t first = name.find('_'), second = name.find('_', first + 1), third = name.find('_', second + 1);
  return first == std::string::npos ? "" : name.substr(first + 1, third - first - 1);
}

const emu::Kernel* find_kernel(const std::string& library, const std::string& name) {
  void* handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    state().messages = dlerror();
    return nullptr;
  }
  const auto* kernel = static_cast<const emu::Kernel*>(dlsym(handle, "emu_kernels"));
  while (kernel != nullptr && kernel->name != nullptr && name != kernel->name) ++kernel;
  return kernel != nullptr && kernel->name != nullptr ? kernel : nullptr;
}

}  // namespace

EMU_API int cuInit(unsigned) {
  state().initialised = true;
  return 0;
}
EMU_API int cuGetErrorString(int result, const char** text) {
  *text = result == kLaunchFailed ? state().messages.c_str() : "error of the emulated driver";
  return 0;
}
EMU_API int cuCtxGetCurrent(void** context) {
  *context = reinterpret_cast<void*>(1);
  return state().initialised ? 0 : kNotInitialised;
}
EMU_API int cuCtxSetCurrent(void*) { return 0; }
EMU_API int cuCtxSynchronize() { return 0; }
EMU_API int cuCtxGetDevice(int* device) { return *device = 0; }
EMU_API int cuDevicePrimaryCtxRetain(void** context, int) {
  *context = reinterpret_cast<void*>(1);
  return 0;
}
EMU_API int cuDeviceGetAttribute(int* value, int attribute, int) {
  switch (attribute) {
    case 16: *value = state().multiprocessors; return 0;
    case 75: *value = 8; return 0;
    case 76: *value = 0; return 0;
    default: return kInvalidValue;
  }
}
EMU_API int cuModuleLoadData(void** module, const void* image) {
  uint32_t magic;
  std::memcpy(&magic, image, sizeof magic);
  if (magic != kFatbinMagic) return kInvalidImage;
  *module = const_cast<void*>(image);
  return 0;
}
EMU_API int cuModuleGetFunction(void** function, void*, const char* name) {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  const std::string library = s.kernels + "/" + module_of(name) + ".so", key = library + "#" + name;
  auto found = s.functions.find(key);
  if (found == s.functions.end()) {
    const emu::Kernel* kernel = find_kernel(library, name);
    if (kernel == nullptr) return kNotFound;
    found = s.functions.emplace(key, LoadedFunction{kernel}).first;
  }
  *function = &found->second;
  return 0;
}
EMU_API int cuFuncSetAttribute(void* function, int attribute, int value) {
  if (attribute != 8) return kInvalidValue;
  static_cast<LoadedFunction*>(function)->dynamic_shared_limit = value;
  return 0;
}
EMU_API int cuMemAlloc_v2(uint64_t* pointer, size_t bytes) {
  void* memory = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  if (memory == nullptr) return 2;
  std::memset(memory, 0xff, bytes);
  const std::lock_guard lock(state().mutex);
  emu::global_memory().add(memory, bytes, true, false, "allocation of " + std::to_string(bytes));
  *pointer = reinterpret_cast<uint64_t>(memory);
  return 0;
}
EMU_API int cuMemFree_v2(uint64_t pointer) {
  const std::lock_guard lock(state().mutex);
  void* memory = reinterpret_cast<void*>(pointer);
  if (!emu::global_memory().remove(memory)) return kInvalidValue;
  std::free(memory);
  return 0;
}
EMU_API int cuMemcpyHtoD_v2(uint64_t to, const void* from, size_t bytes) {
  const std::lock_guard lock(state().mutex);
  if (!emu::global_memory().mark_initialised(reinterpret_cast<void*>(to), bytes)) return kInvalidValue;
  std::memcpy(reinterpret_cast<void*>(to), from, bytes);
  return 0;
}
EMU_API int cuMemcpyDtoH_v2(void* to, uint64_t from, size_t bytes) {
  std::memcpy(to, reinterpret_cast<const void*>(from), bytes);
  return 0;
}

EMU_API int cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                           unsigned shared_bytes, void*, void** params, void** extra) {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  const auto* loaded = static_cast<const LoadedFunction*>(function);
  if (by != 1 || bz != 1 || bx % 32 != 0 || extra != nullptr) return kInvalidValue;
  if (static_cast<int>(shared_bytes) > loaded->dynamic_shared_limit) return kInvalidValue;
  const emu::Report report =
      emu::run({loaded->kernel, {gx, gy, gz}, bx, shared_bytes, static_cast<const unsigned char*>(params[0])}, s.options);
  s.launches += 1;
  s.last_kernel = loaded->kernel->name;
  s.counts = emu::end_counting();
  s.counted = loaded->kernel;
  s.messages.clear();
  for (const std::string& message : report.messages) s.messages += message + "\n";
  s.faults = 0;
  for (const uint64_t count : report.faults) s.faults += count;
  return report.clean() ? 0 : kLaunchFailed;
}

// Controls for tests, by ctypes.
EMU_API void emu_configure(const char* kernels, const emu::Options* options, int multiprocessors) {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  if (kernels != nullptr) s.kernels = kernels;
  if (options != nullptr) s.options = *options;
  if (multiprocessors > 0) s.multiprocessors = multiprocessors;
}
EMU_API const char* emu_messages() { return state().messages.c_str(); }
EMU_API const char* emu_last_kernel() { return state().last_kernel.c_str(); }
EMU_API uint64_t emu_launches() { return state().launches; }
EMU_API int emu_all_written(uint64_t pointer) {
  return emu::global_memory().all_initialised(reinterpret_cast<void*>(pointer));
}
EMU_API size_t emu_count(size_t index, emu::SiteCount* count, const char** opcode) {
  State& s = state();
  if (index < s.counts.size()) {
    *count = s.counts[index];
    *opcode = s.counted->sites[count->site];
  }
  return s.counts.size();
}
