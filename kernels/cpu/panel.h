// The prepack: layout "panel16", version 1. One layout serves every instruction set.
//
// A *panel* is 16 columns of W. Its codes follow each other block after block along K, so that a
// product over the panel is one stream of reads. Within a block, K goes in groups of 4: the four codes
// of a column stand side by side, because one lane of a dot-product instruction (vpdpbusd, sdot)
// multiplies 4 bytes of a column by the same 4 bytes of A. 16 columns x 4 codes = 64 bytes = one line
// (one AVX-512 register, two AVX2 registers, four NEON registers, one row of an AMX tile).
//
//   8 bits  a line holds 1 group:   byte 4c+i                = code(k = 4*line + i, column c)
//   4 bits  a line holds 2 groups:  byte 4c+i, bits 4f..4f+3 = code(k = 8*line + 4f + i, column c)
//   2 bits  a line holds 4 groups:  byte 4c+i, bits 2f..2f+1 = code(k = 16*line + 4f + i, column c)
//   1 bit   a line holds 8 groups:  byte 4c+i, bit f         = code(k = 32*line + 4f + i, column c)
//
// so that a mask (and for all but the lowest field a shift, or the knowledge that the product is 2^s
// times too large) turns a line into bytes; no bytes move between lanes. 3, 5 and 6 bits are two such
// streams, low and high: code = low | high << low_bits.
//
// Codes are unsigned (a signed file type is offset by 2^(bits-1)); lines are aligned to 64 bytes. Scales
// and zero points stand apart, 16 per block, so that code lines stay aligned. K is padded to whole
// blocks and N to whole panels: padded codes are 2^(bits-1) if signed, else 0, and padded scales are 0.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cpu/aligned_buffer.h"
#include "cpu/weight_source.h"

namespace onnxq::cpu {

inline constexpr int kLineBytes = kPanelColumns * kGroup;  // 64
static_assert(kLineBytes == kCacheLine);

// Blocks are powers of two in this range: a block holds whole lines down to 2 bits.
inline constexpr int kMinBlock = 16;
inline constexpr int kMaxBlock = 256;

// One stream of lines: the low or the high part of the codes.
struct PanelStream {
  int bits = 0;           // 0: no such part
  int64_t block_bytes = 0;  // whole lines; 1 bit at block 16 fills half of its only line
  AlignedBuffer<uint8_t> lines;  // [panels][blocks][block_bytes]

  PanelStream() = default;
  PanelStream(int stream_bits, int block, int64_t panel_blocks);
};

// The values that codes stand for, if they are not numbers themselves.
//
// Up to 16 single values are looked up inside a register, by codes in lines as above. Larger tables and
// vectors are looked up in memory, by whole bytes in an order of their own: indices [panels][K / dim][16].
struct Codebook {
  static constexpr int kRegisterEntries = 16;

  int dim = 1;
  AlignedBuffer<float> values;     // [entries][dim], at least 16 floats; empty: there is no codebook
  AlignedBuffer<uint8_t> indices;  // empty if the codes are in lines

  explicit operator bool() const { return values.size() > 0; }
  bool in_register() const { return indices.size() == 0; }
};

struct PackedWeight {
  explicit PackedWeight(const WeightSource& source);
  explicit PackedWeight(const CodebookSource& source);

  int64_t k = 0;
  int64_t n = 0;
  int64_t blocks = 0;   // ceil(k / block)
  int64_t panels = 0;   // ceil(n / 16)
  int block = 0;
  int bits = 0;
  bool half_scales = false;
  bool has_zero_points = false;

  PanelStream low;
  PanelStream high;
  Codebook codebook;
  AlignedBuffer<uint8_t> scales;       // [panels][blocks][16] of float16 or float32
  AlignedBuffer<uint8_t> zero_points;  // [panels][blocks][16], empty if the codes are symmetric

  int64_t padded_k() const { return blocks * block; }
  int64_t block_bytes() const { return low.block_bytes + high.block_bytes; }
  // Bytes that a product reads of one panel, whatever they mean.
  int64_t panel_bytes() const {
    return codebook && !codebook.in_register() ? k / codebook.dim * kPanelColumns : blocks * block_bytes();
  }
  // The zero point of every code of a symmetric weight.
  int symmetric_zero_point() const { return 1 << (bits - 1); }

  const uint8_t* low_lines(int64_t panel, int64_t b) const {
    return low.lines.data() + (panel * blocks + b) * low.block_bytes;
  }
  const uint8_t* high_lines(int64_t panel, int64_t b) const {
    return high.lines.data() + (panel * blocks + b) * high.block_bytes;
  }
  const uint8_t* panel_scales(int64_t panel) const {
    return scales.data() + panel * blocks * kPanelColumns * (half_scales ? 2 : 4);
  }
  const uint8_t* panel_zero_points(int64_t panel) const {
    return has_zero_points ? zero_points.data() + panel * blocks * kPanelColumns : nullptr;
  }

 private:
  enum class Codes { kLines, kIndices };
  PackedWeight(const WeightSource& source, int64_t depth, Codes codes);
  // Blocks from first_block on, of panels [first_panel, end_panel).
  struct BlockRange {
    int64_t first_panel, end_panel, first_block;
  };
  void pack_codes(const WeightSource& source);
  void pack_blocks(const WeightSource& source, BlockRange range);
  void pack_indices(const WeightSource& indices, int64_t rows);
  void pack_scales(const WeightSource& source);
};

}  // namespace onnxq::cpu
