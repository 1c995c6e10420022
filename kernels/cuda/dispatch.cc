#include "cuda/dispatch.h"

#include "cuda/tile_shape.h"

namespace onnxq::cuda {
namespace {

constexpr int kDecodeTokens = 8;
constexpr unsigned kDecodeThreads = 256;

Choice tile_launch(Kind kind, const TileShape& shape, const Product& p) {
  const auto as_unsigned = [](int v) { return static_cast<unsigned>(v); };
  return {kind, as_unsigned(ceil_div(p.m, shape.tokens())), as_unsigned(ceil_div(p.n, shape.columns())),
          as_unsigned(shape.threads()), as_unsigned(stage_layout(shape, p.element, p.bits).shared_bytes)};
}

}  // namespace

// tokens    shape                                kernel  why
// 1 .. 8    any                                  decode  bound by reading weights: no staging
// 9 .. 63   any                                  mid     weights still weigh most: 32-column CTAs, split depth
// 64 ..     wide CTAs fill half the GPU or more  wide    bound by the tensor cores: 128 x 128 tiles
// 64 ..     fewer CTAs than that                 mid     more, smaller CTAs beat an idle GPU
//
// The same on every architecture so far; a measured exception belongs here, with its measurement.
Kind choose(const Product& product, const Device& device) {
  if (product.m <= kDecodeTokens) return Kind::kDecode;
  const Choice wide = launch_of(Kind::kWide, product);
  const bool fills = 2 * wide.grid_x * wide.grid_y >= static_cast<unsigned>(device.multiprocessors);
  return product.m >= 64 && fills ? Kind::kWide : Kind::kMid;
}

Choice launch_of(Kind kind, const Product& product) {
  switch (kind) {
    case Kind::kDecode:
      return {kind, static_cast<unsigned>(ceil_div(product.n, kTileColumns)), 1, kDecodeThreads, 0};
    case Kind::kMid: return tile_launch(kind, mid_shape(product.element), product);
    case Kind::kWide: break;
  }
  return tile_launch(Kind::kWide, wide_shape(product.element), product);
}

std::string kernel_name(Kind kind, int block_log2, bool zero_points) {
  // Blocks of 256 take the decode kernel of 128, which looks a scale up every 128 rows.
  if (kind == Kind::kDecode)
    return (zero_points ? "decode_zeros_p" : "decode_p") + std::to_string(1 << (block_log2 < 7 ? block_log2 : 7));
  return kind == Kind::kMid ? "mid" : "wide";
}

std::string module_name(Element element, int bits, bool codebook) {
  static constexpr const char* kNames[kElements] = {"half", "bfloat16", "float"};
  return std::string(kNames[static_cast<int>(element)]) + (codebook ? "_codebook" : "_") + std::to_string(bits);
}

}  // namespace onnxq::cuda
