// A quantized weight as it stands in the model file, and how to read codes of it.
//
//     W[k, n] = (code(k, n) - zero_point(k / block, n)) * scale(k / block, n)
//
// Codes are read as unsigned numbers. A signed type is the same bits with the top one flipped:
// q = code - 2^(bits-1), so its zero point is 2^(bits-1) everywhere.
#pragma once

#include <cstdint>

#include "cpu/half.h"
#include "cpu/interleave.h"

namespace onnxq::cpu {

inline constexpr int kPanelColumns = 16;  // columns that are read and packed together, see panel.h
inline constexpr int kGroup = 4;          // neighbouring k of a column that are read and packed together

// How codes lie in the file.
enum class Storage {
  kTensor,      // ONNX's own order: row-major [K, N], low bits first within a byte, rows not padded
  kTransposed,  // the same of [N, K]; scales and zero points are transposed too
  kPlanes,      // LAYOUTS.md: planes of 1, 2, 4 or 8 bits, whose fields are runs of rows
};

// Where lines go: one panel's follow each other, panels are `panel_size` bytes apart.
struct PanelLines {
  uint8_t* first;
  int64_t panel_size;
};

struct WeightSource {
  int64_t k = 0;  // depth: elements of a row of A
  int64_t n = 0;  // columns of the product
  int block = 0;  // elements along K that share a scale
  Storage storage = Storage::kTensor;
  bool is_signed = false;
  bool half_scales = false;

  // code = low | high << low_bits. Only planes have a high part.
  int low_bits = 0;
  int high_bits = 0;
  const uint8_t* low = nullptr;
  const uint8_t* high = nullptr;

  const void* scales = nullptr;          // float16 or float32 [ceil(K/block), N]
  const uint8_t* zero_points = nullptr;  // in the shape of scales, packed like a tensor of bits
                                         // zero_point_bits wide; null if the codes are symmetric
  int zero_point_bits = 0;

  int bits() const { return low_bits + high_bits; }
  int64_t blocks() const { return (k + block - 1) / block; }
  int symmetric_zero_point() const { return 1 << (bits() - 1); }

  int code(int64_t row, int64_t column) const;
  int zero_point(int64_t block_row, int64_t column) const;
  float scale(int64_t block_row, int64_t column) const;

  // Reads the codes of one block of 16 columns in the order of the panel layout before it is packed:
  // out[block / 4][16][4]. What lies outside the weight is 0.
  void read_block(int64_t block_row, int64_t first_column, uint8_t* out) const;

  // The same for many codes at once, straight into the lines of panel.h: of panels [0, panels), the lines of the
  // first vector_rows() rows. Only whole vectors of 16 bytes are read: panels come in steps of panels_per_vector(),
  // and vector_rows() is 0 where rows do not begin at bytes (planes: where their runs do not fill lines).
  void read_lines(int64_t panels, const PanelLines& low_lines, const PanelLines& high_lines) const;
  int64_t vector_rows() const;
  int64_t panels_per_vector() const { return storage == Storage::kTensor ? 8 / low_bits : 1; }

  // Where the scale (and the zero point) of a block stands in its tensor.
  int64_t scale_index(int64_t block_row, int64_t column) const {
    return storage == Storage::kTransposed ? column * blocks() + block_row : block_row * n + column;
  }

 private:
  void read_row(int64_t row, int64_t first_column, int64_t columns, uint8_t* out) const;
  Bytes read_plane_row(int64_t row, int64_t first_column) const;  // 16 codes, all inside
  void read_rows_of_block(int64_t first_row, int64_t first_column, uint8_t* out) const;
  void read_columns_of_block(int64_t first_row, int64_t first_column, uint8_t* out) const;
};

// A weight whose codes are indices into a table of `dim` neighbouring values along K:
//
//     W[k, n] = values[index(k / dim, n) * dim + k % dim] * scale(k / block, n)
struct CodebookSource {
  WeightSource indices;  // planes of the matrix [K / dim, N]; its k counts rows of indices, its scales are W's
  const void* values = nullptr;  // float16 or float32 [entries, dim], of the type of the scales
  int entries = 0;
  int dim = 1;

  float value(int64_t i) const {
    return indices.half_scales ? half_to_float(static_cast<const uint16_t*>(values)[i])
                               : static_cast<const float*>(values)[i];
  }
};

}  // namespace onnxq::cpu
