#include "ort/weight_inputs.h"

#include <bit>
#include <limits>

#include "cpu/panel.h"
#include "error.h"

namespace onnxq::ort {
namespace {

int bits_of(ElementType type) {
  switch (type) {
    case ElementType::kUInt2: case ElementType::kInt2: return 2;
    case ElementType::kUInt4: case ElementType::kInt4: return 4;
    case ElementType::kUInt8: case ElementType::kInt8: return 8;
    default: fail("a weight of type ", type_name(type), " has no packed kernel");
  }
}

// Everything that we later compute from K and N (padded sizes, bit offsets) stays below 2^62.
void check_size(int64_t k, int64_t n) {
  constexpr int64_t kLargest = std::numeric_limits<int64_t>::max() / 64;
  if (k <= 0 || n <= 0) fail("the weight is empty: K=", k, ", N=", n);
  if (k > kLargest - 2 * cpu::kMaxBlock || n > kLargest / (k + 2 * cpu::kMaxBlock))
    fail("the weight is too large: K=", k, ", N=", n);
}

void check_shape(const char* what, const Tensor& tensor, const std::vector<int64_t>& expected) {
  if (tensor.shape != expected) fail(what, " has shape ", to_string(tensor.shape), ", expected ", to_string(expected));
}

}  // namespace

int read_block_size(const Api& api, const OrtKernelInfo* info) {
  const std::optional<int64_t> block = api.int_attribute(info, "block_size");
  if (!block) fail("the attribute block_size is missing");
  if (*block < cpu::kMinBlock || *block > cpu::kMaxBlock || !std::has_single_bit(static_cast<uint64_t>(*block)))
    fail("block_size=", *block, " is not a power of two from ", cpu::kMinBlock, " to ", cpu::kMaxBlock);
  return static_cast<int>(*block);
}

cpu::WeightSource check_weight(const WeightTensors& tensors, int block_size, bool transposed) {
  const Tensor& codes = *tensors.codes;
  if (codes.shape.size() != 2) fail("the weight has shape ", to_string(codes.shape), ", expected 2 dimensions");
  cpu::WeightSource source;
  source.k = codes.shape[transposed ? 1 : 0];
  source.n = codes.shape[transposed ? 0 : 1];
  check_size(source.k, source.n);
  source.block = block_size;
  source.low_bits = bits_of(codes.type);
  source.zero_point_bits = source.low_bits;
  source.is_signed = tensors.zero_points == nullptr;
  source.storage = transposed ? cpu::Storage::kTransposed : cpu::Storage::kTensor;
  source.half_scales = tensors.scales->type == ElementType::kFloat16;

  std::vector<int64_t> per_block = {source.blocks(), source.n};
  if (transposed) std::swap(per_block[0], per_block[1]);
  check_shape("scales", *tensors.scales, per_block);
  if (tensors.zero_points != nullptr) {
    check_shape("zero_points", *tensors.zero_points, per_block);
    source.zero_points = tensors.zero_points->as<uint8_t>();
  }
  source.low = codes.as<uint8_t>();
  source.scales = tensors.scales->data;
  return source;
}

Tensor require_constant(const Api& api, const OrtKernelInfo* info, std::size_t index, const char* what) {
  std::optional<Tensor> tensor = api.constant_input(info, index);
  if (!tensor) fail(what, " (input ", index, ") is not a constant; packed weights are repacked once, at load");
  return *tensor;
}

}  // namespace onnxq::ort
