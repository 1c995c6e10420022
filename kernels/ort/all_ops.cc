// The list of what is registered: every name with every combination of types.
#include "ort/gather_op.h"
#include "ort/matmul_op.h"
#include "ort/op.h"

namespace onnxq::ort {
namespace {

using Ops = std::vector<std::unique_ptr<Op>>;
using Types = std::vector<ElementType>;

const Types kFloats = {ElementType::kFloat, ElementType::kFloat16};
const Types kIndices = {ElementType::kInt64, ElementType::kInt32};
const Types kSigned = {ElementType::kInt4, ElementType::kInt8, ElementType::kInt2};
const Types kUnsigned = {ElementType::kUInt4, ElementType::kUInt8, ElementType::kUInt2};

// Appends zero points of the weight's type where the op has them.
Types with_zero_points(Types inputs, Traits traits, ElementType weight) {
  if (traits.zero_points) inputs.push_back(weight);
  return inputs;
}

void add_matmuls(Ops& ops) {
  for (const bool transposed : {false, true})
    for (const bool zero_points : {false, true}) {
      const Traits traits{transposed, zero_points};
      const std::string name =
          std::string("PackedMatMul") + (transposed ? "Transposed" : "") + (zero_points ? "ZeroPoint" : "");
      for (const ElementType a : kFloats)
        for (const ElementType b : zero_points ? kUnsigned : kSigned)
          for (const ElementType scales : kFloats)
            ops.push_back(std::make_unique<Op>(name, with_zero_points({a, b, scales}, traits, b), a, traits,
                                               create_matmul));
    }
}

// Widths that have no ONNX type, in two planes of bytes.
void add_planes(Ops& ops) {
  for (const int bits : {3, 5, 6})
    for (const bool zero_points : {false, true}) {
      const Traits traits{false, zero_points, bits};
      const std::string name = "PackedMatMulBits" + std::to_string(bits) + (zero_points ? "ZeroPoint" : "");
      for (const ElementType a : kFloats)
        for (const ElementType scales : kFloats) {
          const Types inputs = {a, ElementType::kUInt8, ElementType::kUInt8, scales};
          ops.push_back(std::make_unique<Op>(name, with_zero_points(inputs, traits, ElementType::kUInt8), a, traits,
                                             create_planes));
        }
    }
}

void add_codebooks(Ops& ops) {
  for (const int bits : {2, 3, 4, 8}) {
    const Traits traits{false, false, bits};
    const std::string name = "CodebookMatMul" + std::to_string(bits);
    for (const ElementType a : kFloats)
      for (const ElementType scales : kFloats) {
        Types inputs = {a, ElementType::kUInt8, scales, scales};  // A, low, codebook, scales
        if (bits == 3) inputs.insert(inputs.begin() + 2, ElementType::kUInt8);
        ops.push_back(std::make_unique<Op>(name, inputs, a, traits, create_codebook));
      }
  }
}

// The output type of a custom op follows from its input types and nothing else (onnxruntime's shape
// inference hook cannot set a type), so the float16 result has a name of its own.
void add_gathers(Ops& ops) {
  for (const ElementType output : kFloats)
    for (const bool zero_points : {false, true}) {
      const Traits traits{true, zero_points};
      const std::string name = std::string("PackedGather") + (output == ElementType::kFloat16 ? "Float16" : "") +
                               (zero_points ? "ZeroPoint" : "");
      for (const ElementType data : zero_points ? kUnsigned : kSigned)
        for (const ElementType indices : kIndices)
          for (const ElementType scales : kFloats)
            ops.push_back(std::make_unique<Op>(name, with_zero_points({data, indices, scales}, traits, data), output,
                                               traits, create_gather));
    }
}

}  // namespace

const std::vector<std::unique_ptr<Op>>& all_ops() {
  static const Ops ops = [] {
    Ops list;
    add_matmuls(list);
    add_planes(list);
    add_codebooks(list);
    add_gathers(list);
    return list;
  }();
  return ops;
}

}  // namespace onnxq::ort
