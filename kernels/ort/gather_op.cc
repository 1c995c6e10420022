#include "ort/gather_op.h"

#include "cpu/half.h"
#include "error.h"
#include "ort/weight_inputs.h"

namespace onnxq::ort {
namespace {

// One row of the table; the table is a transposed weight, its row a column of W.
template <class Out>
void dequantize_row(const cpu::WeightSource& table, int64_t row, Out* out) {
  for (int64_t i = 0; i < table.k; ++i) {
    const int64_t block = i / table.block;
    const auto code = static_cast<float>(table.code(i, row) - table.zero_point(block, row));
    const float value = code * table.scale(block, row);
    if constexpr (std::is_same_v<Out, float>) {
      out[i] = value;
    } else {
      out[i] = cpu::float_to_half(value);
    }
  }
}

int64_t index_at(const Tensor& indices, int64_t i) {
  return indices.type == ElementType::kInt32 ? indices.as<int32_t>()[i] : indices.as<int64_t>()[i];
}

class Gather final : public Kernel {
 public:
  Gather(const Api& api, const Op& op, int block_size) : api_(api), op_(op), block_size_(block_size) {}

  // The table is read where it stands: repacking would hold a second copy of rows nobody asks for.
  void compute(OrtKernelContext* context) const override {
    const Tensor data = api_.input(context, 0);
    const Tensor indices = api_.input(context, 1);
    const Tensor scales = api_.input(context, 2);
    Tensor zero_points;
    if (op_.traits.zero_points) zero_points = api_.input(context, 3);
    const WeightTensors tensors{&data, &scales, op_.traits.zero_points ? &zero_points : nullptr};
    const cpu::WeightSource table = check_weight(tensors, block_size_, op_.traits.transposed);

    std::vector<int64_t> shape = indices.shape;
    int64_t count = 1;
    for (const int64_t extent : shape) count *= extent;
    shape.push_back(table.k);
    const Tensor out = api_.output(context, 0, shape);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t row = checked_row(index_at(indices, i), table.n);
      if (op_.output == ElementType::kFloat) {
        dequantize_row(table, row, static_cast<float*>(out.data) + i * table.k);
      } else {
        dequantize_row(table, row, static_cast<uint16_t*>(out.data) + i * table.k);
      }
    }
  }

 private:
  // Negative indices count from the end, as in ONNX Gather.
  static int64_t checked_row(int64_t index, int64_t rows) {
    if (index < -rows || index >= rows) fail("index ", index, " is outside [", -rows, ", ", rows - 1, "]");
    return index < 0 ? index + rows : index;
  }

  Api api_;
  const Op& op_;
  int block_size_;
};

}  // namespace

std::unique_ptr<Kernel> create_gather(const Op& op, const Api& api, const OrtKernelInfo* info) {
  return std::make_unique<Gather>(api, op, read_block_size(api, info));
}

}  // namespace onnxq::ort
