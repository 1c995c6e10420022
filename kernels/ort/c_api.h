// The slice of ONNX Runtime's C ABI that this library uses, declared by us.
//
// onnxruntime's wheels carry no C headers, so we declare what we call. The ABI is append-only: a
// function keeps its slot in the `OrtApi` table for ever, and `OrtCustomOp` only grows at its end, so
// slot numbers are facts that cannot go stale. tests/kernels/test_c_api.py calls every slot below in
// the onnxruntime that is installed, and compares the numbers with the official header where there
// is one.
//
// Everything is a plain C pointer; every function that returns `OrtStatus*` returns null for success.
#pragma once

#include <cstddef>
#include <cstdint>

namespace onnxq::ort {

// Opaque objects that onnxruntime owns.
struct OrtStatus;
struct OrtValue;
struct OrtSessionOptions;
struct OrtCustomOpDomain;
struct OrtKernelInfo;
struct OrtKernelContext;
struct OrtTensorTypeAndShapeInfo;
struct OrtKeyValuePairs;

// The table of functions, read by slot number (see `Slot`).
struct OrtApi;
struct OrtApiBase {
  const OrtApi* (*GetApi)(uint32_t version);
  const char* (*GetVersionString)();
};

// KernelInfo_GetConfigEntries arrived with API version 24 (onnxruntime 1.24); all others are older.
inline constexpr uint32_t kApiVersion = 24;

enum class Slot : std::size_t {
  CreateStatus = 0,
  GetErrorMessage = 2,
  CreateCustomOpDomain = 26,
  CustomOpDomain_Add = 27,
  AddCustomOpDomain = 28,
  GetTensorMutableData = 51,
  GetTensorElementType = 60,
  GetDimensionsCount = 61,
  GetDimensions = 62,
  GetTensorTypeAndShape = 65,
  KernelInfoGetAttribute_int64 = 86,
  KernelInfoGetAttribute_string = 87,
  KernelContext_GetInput = 90,
  KernelContext_GetOutput = 91,
  ReleaseStatus = 93,
  ReleaseTensorTypeAndShapeInfo = 99,
  KernelContext_GetGPUComputeStream = 193,
  KernelInfo_GetNodeName = 244,
  KernelInfoGetConstantInput_tensor = 249,
  KernelContext_ParallelFor = 274,
  GetKeyValue = 297,
  ReleaseKeyValuePairs = 300,
  KernelInfo_GetConfigEntries = 391,
};

enum OrtErrorCode : int { ORT_FAIL = 1, ORT_INVALID_ARGUMENT = 2 };

// ONNXTensorElementDataType. The 2-bit types are in the order of the C API, not of TensorProto.
enum class ElementType : int {
  kUndefined = 0,
  kFloat = 1,
  kUInt8 = 2,
  kInt8 = 3,
  kInt32 = 6,
  kInt64 = 7,
  kFloat16 = 10,
  kBFloat16 = 16,
  kUInt4 = 21,
  kInt4 = 22,
  kUInt2 = 24,
  kInt2 = 25,
};

enum OrtMemType : int { OrtMemTypeCPUInput = -2, OrtMemTypeDefault = 0 };
enum OrtCustomOpInputOutputCharacteristic : int { INPUT_OUTPUT_REQUIRED = 0 };

// What onnxruntime asks an operator. Field order and sizes are the ABI; fields that we leave null are
// optional for onnxruntime.
struct OrtCustomOp {
  uint32_t version;
  void* (*CreateKernel)(const OrtCustomOp*, const OrtApi*, const OrtKernelInfo*);
  const char* (*GetName)(const OrtCustomOp*);
  const char* (*GetExecutionProviderType)(const OrtCustomOp*);
  ElementType (*GetInputType)(const OrtCustomOp*, std::size_t index);
  std::size_t (*GetInputTypeCount)(const OrtCustomOp*);
  ElementType (*GetOutputType)(const OrtCustomOp*, std::size_t index);
  std::size_t (*GetOutputTypeCount)(const OrtCustomOp*);
  void (*KernelCompute)(void* kernel, OrtKernelContext*);
  void (*KernelDestroy)(void* kernel);
  OrtCustomOpInputOutputCharacteristic (*GetInputCharacteristic)(const OrtCustomOp*, std::size_t index);
  OrtCustomOpInputOutputCharacteristic (*GetOutputCharacteristic)(const OrtCustomOp*, std::size_t index);
  OrtMemType (*GetInputMemoryType)(const OrtCustomOp*, std::size_t index);
  int (*GetVariadicInputMinArity)(const OrtCustomOp*);
  int (*GetVariadicInputHomogeneity)(const OrtCustomOp*);
  int (*GetVariadicOutputMinArity)(const OrtCustomOp*);
  int (*GetVariadicOutputHomogeneity)(const OrtCustomOp*);
  OrtStatus* (*CreateKernelV2)(const OrtCustomOp*, const OrtApi*, const OrtKernelInfo*, void** kernel);
  OrtStatus* (*KernelComputeV2)(void* kernel, OrtKernelContext*);
  OrtStatus* (*InferOutputShapeFn)(const OrtCustomOp*, void* shape_infer_context);
  int (*GetStartVersion)(const OrtCustomOp*);
  int (*GetEndVersion)(const OrtCustomOp*);
  std::size_t (*GetMayInplace)(int** input_index, int** output_index);
  void (*ReleaseMayInplace)(int* input_index, int* output_index);
  std::size_t (*GetAliasMap)(int** input_index, int** output_index);
  void (*ReleaseAliasMap)(int* input_index, int* output_index);
};
static_assert(sizeof(void*) == 8, "the ABI slice is declared for 64-bit machines");
static_assert(offsetof(OrtCustomOp, KernelDestroy) == 9 * sizeof(void*));
static_assert(offsetof(OrtCustomOp, CreateKernelV2) == 17 * sizeof(void*));
static_assert(sizeof(OrtCustomOp) == 26 * sizeof(void*));

}  // namespace onnxq::ort
