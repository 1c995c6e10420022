// The CUDA driver, found at run time: no link dependency, and no CUDA header is needed to build this.
//
// The functions below are the whole of what the library calls. Their names and types are the driver
// ABI, which NVIDIA keeps stable; `_v2` names are the current ones of functions that once changed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace onnxq::cuda {

using Result = int;  // CUresult, 0 is success
using Context = void*;
using Module = void*;
using Function = void*;
using Stream = void*;
using DevicePointer = uint64_t;

// CUdevice_attribute and CUfunction_attribute values of the driver API.
inline constexpr int kMultiprocessorCount = 16;
inline constexpr int kComputeCapabilityMajor = 75;
inline constexpr int kComputeCapabilityMinor = 76;
inline constexpr int kMaxDynamicSharedBytes = 8;

struct Driver {
  Result (*cuInit)(unsigned flags);
  Result (*cuGetErrorString)(Result, const char** text);
  Result (*cuCtxGetCurrent)(Context*);
  Result (*cuCtxSetCurrent)(Context);
  Result (*cuCtxGetDevice)(int* device);
  Result (*cuDevicePrimaryCtxRetain)(Context*, int device);
  Result (*cuDeviceGetAttribute)(int* value, int attribute, int device);
  Result (*cuModuleLoadData)(Module*, const void* image);
  Result (*cuModuleGetFunction)(Function*, Module, const char* name);
  Result (*cuFuncSetAttribute)(Function, int attribute, int value);
  Result (*cuMemAlloc_v2)(DevicePointer*, std::size_t bytes);
  Result (*cuMemFree_v2)(DevicePointer);
  Result (*cuMemcpyHtoD_v2)(DevicePointer to, const void* from, std::size_t bytes);
  Result (*cuLaunchKernel)(Function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                           unsigned block_y, unsigned block_z, unsigned shared_bytes, Stream, void** params,
                           void** extra);
};

// The driver of this machine, opened and initialised once. Throws Error that says what is missing and
// what to do; the next call tries again, so that a session made before the driver was there is not final.
const Driver& driver();

// Throws Error with the driver's own words unless `result` is 0.
void check(Result result, const char* what);

// Where the driver is looked for. Test builds (ONNXQ_CUDA_EMULATED) name the emulated one instead.
std::string driver_library();

}  // namespace onnxq::cuda
