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

// Rows whose lines are made together: their pages fit the processor's store of address translations, and each
// cache line of a row is still cached when its next 16 bytes are read. The next line is asked for meanwhile.
constexpr int64_t kRowsTogether = 64;
constexpr int64_t kAheadBytes = 64;

struct PackedRows {
  const uint8_t* bytes;
  int64_t stride;   // bytes from row to row (or column to column)
  int64_t count;    // of rows of bytes along K
  int64_t vectors;  // of 16 bytes, side by side
};

// Calls body(row, vector) for the first of every kRows rows, tile after tile.
template <int kRows, class Body>
void for_tiles(const PackedRows& rows, const Body& body) {
  for (int64_t first = 0; first < rows.count; first += kRowsTogether)
    for (int64_t v = 0; v < rows.vectors; ++v)
      for (int64_t row = first; row < std::min(first + kRowsTogether, rows.count); row += kRows) {
        const uint8_t* ahead = rows.bytes + row * rows.stride + v * 16 + kAheadBytes;
        if (v % (kLineBytes / 16) == 0)
          for (int r = 0; r < kRows; ++r) __builtin_prefetch(ahead + r * rows.stride);
        body(row, v);
      }
}

template <int kBits>
void read_tensor(const PackedRows& in, Bytes flip, const PanelLines& out) {
  constexpr int kFields = 8 / kBits;
  for_tiles<kGroup * kFields>(in, [&](int64_t row, int64_t v) {
    uint8_t* to = out.first + row / (kGroup * kFields) * kLineBytes + v * kFields * out.panel_size;
    tensor_lines<kBits>(in.bytes + row * in.stride + v * 16, in.stride, flip, to, out.panel_size);
  });
}

template <int kBits>
void read_plane(const PackedRows& in, const PanelLines& out) {
  constexpr int kRows = kGroup * 8 / kBits;
  for_tiles<kRows>(in, [&](int64_t row, int64_t v) {
    uint8_t* to = out.first + row / kRows * kLineBytes + v * out.panel_size;
    plane_lines<kBits>(in.bytes + row * in.stride + v * 16, in.stride, to, in.count / kRows * kLineBytes);
  });
}

// One panel: 16 columns, `stride` bytes apart, of which `bytes` each are read.
template <int kBits>
void read_transposed(const uint8_t* column, int64_t stride, int64_t bytes, Bytes flip, uint8_t* out) {
  for (int64_t i = 0; i < bytes; i += 16, out += 4 * kLineBytes)
    transposed_lines<kBits>(column + i, stride, flip, out);
}

// Calls body.template operator()<bits>() for the width of a stream.
template <class Body>
void for_width(int bits, const Body& body) {
  switch (bits) {
    case 1: return body.template operator()<1>();
    case 2: return body.template operator()<2>();
    case 4: return body.template operator()<4>();
    case 8: return body.template operator()<8>();
    default: return;
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

Bytes WeightSource::read_plane_row(int64_t row, int64_t first_column) const {
  const PlaneRow low_at(row, k, low_bits);
  const Bytes codes = plane_codes(low + low_at.byte_row * n + first_column, low_at.shift, low_bits);
  if (high == nullptr) return codes;
  const PlaneRow high_at(row, k, high_bits);
  return codes | plane_codes(high + high_at.byte_row * n + first_column, high_at.shift, high_bits) << low_bits;
}

void WeightSource::read_rows_of_block(int64_t first_row, int64_t first_column, uint8_t* out) const {
  const int64_t columns = std::min<int64_t>(kPanelColumns, n - first_column);
  for (int64_t row = first_row; row < first_row + block; row += kGroup, out += kLineBytes) {
    if (storage == Storage::kPlanes && columns == kPanelColumns && row + kGroup <= k) {
      Bytes group[kGroup];
      for (int i = 0; i < kGroup; ++i) group[i] = read_plane_row(row + i, first_column);
      store_line<store_bytes>(group, out);
      continue;
    }
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
  for (int64_t c = 0; c < kPanelColumns; ++c) {
    uint8_t column[kMaxBlock] = {};
    if (c < columns) unpack_run(low, (first_column + c) * k + first_row, length, low_bits, column);
    for (int g = 0; g < block / kGroup; ++g)
      std::memcpy(out + g * kLineBytes + c * kGroup, column + g * kGroup, kGroup);
  }
}

int64_t WeightSource::vector_rows() const {
  const bool bytewise = (storage == Storage::kTensor ? n : k) * low_bits % 8 == 0;
  if (storage == Storage::kTensor) return bytewise ? k / block * block : 0;
  if (storage == Storage::kTransposed) return bytewise ? k * low_bits / 128 * 128 / low_bits : 0;
  // A plane: each of the 8 / bits runs of rows must fill lines of 4 * 8 / bits rows, and a line lie in one block.
  for (const int bits : {low_bits, high_bits}) {
    if (bits == 0) continue;
    const int fields = 8 / bits;
    if (k % (fields * fields * kGroup) != 0 || block % (fields * kGroup) != 0) return 0;
  }
  return k;
}

void WeightSource::read_lines(int64_t panels, const PanelLines& low_lines, const PanelLines& high_lines) const {
  if (storage == Storage::kPlanes) {
    for_width(low_bits, [&]<int kBits>() { read_plane<kBits>({low, n, k * kBits / 8, panels}, low_lines); });
    for_width(high_bits, [&]<int kBits>() { read_plane<kBits>({high, n, k * kBits / 8, panels}, high_lines); });
    return finish_streams();
  }
  // The top bit of every code of a byte.
  const auto flips = static_cast<uint8_t>(is_signed ? symmetric_zero_point() * 255 / ((1 << low_bits) - 1) : 0);
  const Bytes flip = Bytes{} + flips;
  for_width(low_bits, [&]<int kBits>() {
    const int64_t rows = vector_rows();
    if (storage == Storage::kTensor)
      return read_tensor<kBits>({low, n * kBits / 8, rows, panels / panels_per_vector()}, flip, low_lines);
    const int64_t stride = k * kBits / 8;
    for (int64_t panel = 0; panel < panels; ++panel)
      read_transposed<kBits>(low + panel * kPanelColumns * stride, stride, rows * kBits / 8, flip,
                             low_lines.first + panel * low_lines.panel_size);
  });
  finish_streams();
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
