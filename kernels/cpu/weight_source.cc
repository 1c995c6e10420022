#include "cpu/weight_source.h"

#include <algorithm>
#include <cstring>

#include "cpu/interleave.h"
#include "cpu/panel.h"

namespace onnxq::cpu {
namespace {

// Code number `index` of a tensor of `bits`-wide codes.
int unpack_one(const uint8_t* packed, int64_t index, int bits) {
  const int64_t bit = index * bits;
  return (packed[bit / 8] >> (bit % 8)) & ((1 << bits) - 1);
}

// Codes first .. first + count of a tensor.
void unpack_run(const uint8_t* packed, int64_t first, int64_t count, int bits, uint8_t* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = static_cast<uint8_t>(unpack_one(packed, first + i, bits));
}

// 16 columns of `rows` rows of a tensor, into out[rows / 4][16][4]. `bytes` is where the first row's codes
// begin, at a byte, and so do all others, `stride` bytes apart.
template <int kBits>
void read_aligned_rows(const uint8_t* bytes, int64_t stride, int rows, uint8_t* out) {
  for (int row = 0; row < rows; row += kGroup, out += kLineBytes)
    interleave_rows<kBits>(bytes + row * stride, stride, out);
}

// The same of a transposed tensor: the codes of a column lie together, columns `stride` bytes apart.
template <int kBits>
void read_aligned_columns(const uint8_t* bytes, int64_t stride, int rows, uint8_t* out) {
  for (int c = 0; c < kPanelColumns; ++c)
    for (int row = 0; row < rows; row += 16) {
      uint8_t codes[16];
      unpack_column<kBits>(bytes + c * stride + row * kBits / 8, codes);
      for (int g = 0; g < 16 / kGroup; ++g)
        std::memcpy(out + (row / kGroup + g) * kLineBytes + c * kGroup, codes + g * kGroup, kGroup);
    }
}

// Where a plane of `bits` holds row `row` of a [k, n] matrix: the byte's row, and the field's shift.
struct PlaneRow {
  PlaneRow(int64_t row, int64_t k, int bits) {
    const int64_t run = (k * bits + 7) / 8;
    byte_row = row % run;
    shift = static_cast<int>(row / run) * bits;
  }
  int64_t byte_row;
  int shift;
};

int plane_code(const uint8_t* plane, const WeightSource& source, int bits, int64_t row, int64_t column) {
  const PlaneRow at(row, source.k, bits);
  return (plane[at.byte_row * source.n + column] >> at.shift) & ((1 << bits) - 1);
}

}  // namespace

int WeightSource::code(int64_t row, int64_t column) const {
  const int flip = is_signed ? symmetric_zero_point() : 0;
  switch (storage) {
    case Storage::kTensor: return unpack_one(low, row * n + column, low_bits) ^ flip;
    case Storage::kTransposed: return unpack_one(low, column * k + row, low_bits) ^ flip;
    case Storage::kPlanes: break;
  }
  const int upper = high == nullptr ? 0 : plane_code(high, *this, high_bits, row, column);
  return plane_code(low, *this, low_bits, row, column) | upper << low_bits;
}

int WeightSource::zero_point(int64_t block_row, int64_t column) const {
  return zero_points == nullptr ? symmetric_zero_point()
                                : unpack_one(zero_points, scale_index(block_row, column), zero_point_bits);
}

float WeightSource::scale(int64_t block_row, int64_t column) const {
  const int64_t index = scale_index(block_row, column);
  return half_scales ? half_to_float(static_cast<const uint16_t*>(scales)[index])
                     : static_cast<const float*>(scales)[index];
}

// 16 codes of one row; those beyond `columns` keep the value 0 that the caller gave them.
void WeightSource::read_row(int64_t row, int64_t first_column, int64_t columns, uint8_t* out) const {
  if (storage == Storage::kTensor) return unpack_run(low, row * n + first_column, columns, low_bits, out);
  const PlaneRow low_at(row, k, low_bits);
  const uint8_t* from = low + low_at.byte_row * n + first_column;
  const int mask = (1 << low_bits) - 1;
  for (int64_t c = 0; c < columns; ++c) out[c] = static_cast<uint8_t>((from[c] >> low_at.shift) & mask);
  if (high == nullptr) return;
  const PlaneRow high_at(row, k, high_bits);
  from = high + high_at.byte_row * n + first_column;
  const int high_mask = (1 << high_bits) - 1;
  for (int64_t c = 0; c < columns; ++c)
    out[c] = static_cast<uint8_t>(out[c] | ((from[c] >> high_at.shift) & high_mask) << low_bits);
}

void WeightSource::read_rows_of_block(int64_t first_row, int64_t first_column, uint8_t* out) const {
  const int64_t columns = std::min<int64_t>(kPanelColumns, n - first_column);
  if (storage == Storage::kTensor && columns == kPanelColumns && first_row + block <= k && n * low_bits % 8 == 0) {
    const int64_t stride = n * low_bits / 8;
    const uint8_t* bytes = low + first_row * stride + first_column * low_bits / 8;
    if (low_bits == 2) return read_aligned_rows<2>(bytes, stride, block, out);
    if (low_bits == 4) return read_aligned_rows<4>(bytes, stride, block, out);
    return read_aligned_rows<8>(bytes, stride, block, out);
  }
  for (int64_t row = first_row; row < first_row + block; row += kGroup, out += kLineBytes) {
    uint8_t rows[kGroup][kPanelColumns] = {};
    for (int64_t i = 0; i < std::min<int64_t>(kGroup, k - row); ++i)
      read_row(row + i, first_column, columns, rows[i]);
    for (int c = 0; c < kPanelColumns; ++c) {
      const uint32_t group = rows[0][c] | rows[1][c] << 8 | rows[2][c] << 16 | static_cast<uint32_t>(rows[3][c]) << 24;
      std::memcpy(out + c * kGroup, &group, kGroup);
    }
  }
}

void WeightSource::read_columns_of_block(int64_t first_row, int64_t first_column, uint8_t* out) const {
  const int64_t columns = std::min<int64_t>(kPanelColumns, n - first_column);
  const int64_t length = std::min<int64_t>(block, k - first_row);
  if (columns == kPanelColumns && length == block && k * low_bits % 8 == 0) {
    const int64_t stride = k * low_bits / 8;
    const uint8_t* bytes = low + first_column * stride + first_row * low_bits / 8;
    if (low_bits == 2) return read_aligned_columns<2>(bytes, stride, block, out);
    if (low_bits == 4) return read_aligned_columns<4>(bytes, stride, block, out);
    return read_aligned_columns<8>(bytes, stride, block, out);
  }
  for (int64_t c = 0; c < kPanelColumns; ++c) {
    uint8_t column[kMaxBlock] = {};
    if (c < columns) unpack_run(low, (first_column + c) * k + first_row, length, low_bits, column);
    for (int g = 0; g < block / kGroup; ++g)
      std::memcpy(out + g * kLineBytes + c * kGroup, column + g * kGroup, kGroup);
  }
}

void WeightSource::read_block(int64_t block_row, int64_t first_column, uint8_t* out) const {
  if (storage == Storage::kTransposed) {
    read_columns_of_block(block_row * block, first_column, out);
  } else {
    read_rows_of_block(block_row * block, first_column, out);
  }
  if (!is_signed) return;
  const auto flip = static_cast<uint8_t>(symmetric_zero_point());
  const int count = block * kPanelColumns;  // a member would have to be read again after every byte written
  for (int i = 0; i < count; ++i) out[i] ^= flip;
}

}  // namespace onnxq::cpu
