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

int64_t read_rows(const Api& api, const OrtKernelInfo* info) {
  const std::optional<int64_t> rows = api.int_attribute(info, "rows");
  if (!rows) fail("the attribute rows (K) is missing");
  return *rows;
}

namespace {

// The planes of a [rows, n] matrix of codes; scales and zero points come after.
cpu::WeightSource check_codes(const PlaneTensors& tensors, int64_t rows) {
  if (tensors.low->shape.size() != 2) fail("low has shape ", to_string(tensors.low->shape), ", expected 2 dimensions");
  cpu::WeightSource source;
  source.storage = cpu::Storage::kPlanes;
  source.k = rows;
  source.n = tensors.low->shape[1];
  check_size(source.k, source.n);
  source.high_bits = tensors.bits == 6 ? 2 : tensors.high != nullptr ? 1 : 0;
  source.low_bits = tensors.bits - source.high_bits;
  const auto expect_plane = [&](const char* what, const Tensor& plane, int bits) {
    check_shape(what, plane, {(rows * bits + 7) / 8, source.n});
    return plane.as<uint8_t>();
  };
  source.low = expect_plane("low", *tensors.low, source.low_bits);
  if (tensors.high != nullptr) source.high = expect_plane("high", *tensors.high, source.high_bits);
  return source;
}

void add_scales(cpu::WeightSource& source, const PlaneTensors& tensors, int64_t depth, int block_size) {
  source.block = block_size;
  source.half_scales = tensors.scales->type == ElementType::kFloat16;
  source.scales = tensors.scales->data;
  const std::vector<int64_t> per_block = {(depth + block_size - 1) / block_size, source.n};
  check_shape("scales", *tensors.scales, per_block);
  if (tensors.zero_points == nullptr) return;
  check_shape("zero_points", *tensors.zero_points, per_block);
  source.zero_points = tensors.zero_points->as<uint8_t>();
  source.zero_point_bits = 8;
}

}  // namespace

cpu::WeightSource check_planes(const PlaneTensors& tensors, int64_t rows, int block_size) {
  cpu::WeightSource source = check_codes(tensors, rows);
  add_scales(source, tensors, rows, block_size);
  return source;
}

cpu::CodebookSource check_codebook(const PlaneTensors& tensors, const Tensor& codebook, int64_t rows, int block_size) {
  const std::string shape = to_string(codebook.shape);
  if (codebook.shape.size() != 2) fail("codebook has shape ", shape, ", expected [entries, dim]");
  const int64_t entries = codebook.shape[0];
  const int64_t dim = codebook.shape[1];
  if (dim != 1 && dim != 2 && dim != 4 && dim != 8)
    fail("codebook has shape ", shape, ", expected a dim of 1, 2, 4 or 8");
  if (entries < 1 || entries > int64_t{1} << tensors.bits)
    fail("codebook has shape ", shape, ", expected 1 to ", int64_t{1} << tensors.bits, " entries");
  if (rows % dim != 0) fail("rows=", rows, " is not a multiple of the codebook's dim=", dim);
  cpu::CodebookSource source;
  source.indices = check_codes(tensors, rows / dim);
  check_size(rows, source.indices.n);
  add_scales(source.indices, tensors, rows, block_size);
  source.values = codebook.data;
  source.entries = static_cast<int>(entries);
  source.dim = static_cast<int>(dim);
  if (entries == int64_t{1} << tensors.bits) return source;  // every index has an entry
  for (int64_t row = 0; row < source.indices.k; ++row)
    for (int64_t column = 0; column < source.indices.n; ++column) {
      const int index = source.indices.code(row, column);
      if (index < entries) continue;
      fail("index ", index, " at [", row, ", ", column, "] is beyond the codebook's ", entries, " entries");
    }
  return source;
}

Tensor require_constant(const Api& api, const OrtKernelInfo* info, std::size_t index, const char* what) {
  std::optional<Tensor> tensor = api.constant_input(info, index);
  if (!tensor) fail(what, " (input ", index, ") is not a constant; packed weights are repacked once, at load");
  return *tensor;
}

}  // namespace onnxq::ort
