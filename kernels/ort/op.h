// One registered operator: a name and one combination of input and output types.
//
// onnxruntime merges the OrtCustomOps of one name into one schema and picks the kernel by types, which
// is how int2 weights work at all: an input of type UNDEFINED takes every type but those.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ort/api.h"

namespace onnxq::ort {

// What onnxruntime holds for one node of one session. compute() may run on several threads at once.
class Kernel {
 public:
  virtual ~Kernel() = default;
  virtual void compute(OrtKernelContext* context) const = 0;
};

struct Op;
using KernelFactory = std::unique_ptr<Kernel> (*)(const Op& op, const Api& api, const OrtKernelInfo* info);

// What the name of an op says about its weight.
struct Traits {
  bool transposed = false;   // weight [N, K] instead of [K, N]
  bool zero_points = false;  // unsigned codes with zero points instead of signed ones
  int bits = 0;              // of a code, where the input type does not tell
};

struct Op : OrtCustomOp {
  Op(std::string name, std::vector<ElementType> inputs, ElementType output, Traits traits, KernelFactory create);

  // "PackedMatMul(float, int4, float16) -> float"
  std::string signature() const;

  std::string name;
  std::vector<ElementType> inputs;
  ElementType output;
  Traits traits;
  KernelFactory create;
};

// Every operator of the library, built once; the addresses stay valid for the life of the process.
const std::vector<std::unique_ptr<Op>>& all_ops();

const char* type_name(ElementType type);

}  // namespace onnxq::ort
