// Which kernel multiplies how many tokens, and how it is launched.
#pragma once

#include <string>

#include "cuda/layout.h"

namespace onnxq::cuda {

// What dispatch may depend on, apart from the product itself.
struct Device {
  int multiprocessors = 0;
  int capability = 0;  // 80 for sm_80
};

enum class Kind { kDecode, kMid, kWide };

struct Choice {
  Kind kind;
  unsigned grid_x;
  unsigned grid_y;
  unsigned threads;
  unsigned shared_bytes;  // dynamic
};

// One product: what a choice depends on.
struct Product {
  Element element;
  int bits;
  int m;
  int n;
};

// The kernel for a product on a device, by the table in dispatch.cc.
Kind choose(const Product& product, const Device& device);

// How a kernel is launched for it.
Choice launch_of(Kind kind, const Product& product);

// Its name in the module: "decode_p32" for blocks of 32, "decode_zeros_p32" with zero points, "mid", "wide".
std::string kernel_name(Kind kind, int block_log2, bool zero_points);

// The module that holds the kernels of one type and width: "half_4", or "half_codebook4".
std::string module_name(Element element, int bits, bool codebook);

}  // namespace onnxq::cuda
