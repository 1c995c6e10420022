// What the tests (and gpu_check) drive by ctypes: the library's own repacking, dispatch and launch code, on
// whichever driver it is told to load, emulated or real.
#include <dlfcn.h>

#include <cstring>
#include <memory>
#include <string>

#include "cpu/half.h"
#include "cuda/gather.h"
#include "cuda/matmul.h"
#include "cuda/modules.h"
#include "error.h"

#define HARNESS_API extern "C" __attribute__((visibility("default")))

namespace onnxq::cuda {
namespace {

std::string last_error;

template <class Body>
int guarded(Body&& body) {
  try {
    body();
    return 0;
  } catch (const std::exception& error) {
    last_error = error.what();
    return 1;
  }
}

// Two functions of the driver that the library has no use for.
template <class Function>
Function find(const char* name) {
  void* handle = dlopen(driver_library().c_str(), RTLD_NOW | RTLD_LOCAL);
  void* symbol = handle == nullptr ? nullptr : dlsym(handle, name);
  if (symbol == nullptr) fail("no ", name, " in ", driver_library());
  return reinterpret_cast<Function>(symbol);
}

class DeviceBuffer {
 public:
  DeviceBuffer(const void* from, std::size_t bytes, std::size_t skew) : skew_(skew) {
    current_context();
    check(driver().cuMemAlloc_v2(&base_, bytes + skew), "cuMemAlloc");
    if (from != nullptr && bytes > 0) check(driver().cuMemcpyHtoD_v2(base_ + skew, from, bytes), "cuMemcpyHtoD");
  }
  ~DeviceBuffer() { driver().cuMemFree_v2(base_); }
  void* get() const { return reinterpret_cast<void*>(base_ + skew_); }

 private:
  DevicePointer base_ = 0;
  std::size_t skew_;
};

void read_back(void* to, const DeviceBuffer& from, std::size_t bytes) {
  check(find<Result (*)()>("cuCtxSynchronize")(), "the launch");
  check(find<Result (*)(void*, DevicePointer, std::size_t)>("cuMemcpyDtoH_v2")(
            to, reinterpret_cast<DevicePointer>(from.get()), bytes),
        "cuMemcpyDtoH");
}

}  // namespace

// One product, described as the tests see it.
struct ProductCase {
  const void* activations;
  const uint8_t* codes;
  const void* scales;
  const uint8_t* zero_points;
  const float* codebook;  // null: codes are integers
  void* output;
  int64_t m, k, n, entries;  // entries: of the codebook
  int32_t bits, block, element, is_signed, transposed, half_scales;
  int32_t kind;  // of dispatch.h, or -1: let dispatch choose
  int32_t skew;  // bytes by which activations and output miss their alignment
};

// Codes and zero points in ONNX's order, whatever their width: row-major, low bits first.
class CaseWeight final : public Weight {
 public:
  explicit CaseWeight(const ProductCase& c) : case_(c) {
    k = c.k;
    n = c.n;
    block = c.block;
    bits = c.bits;
    has_zero_points = c.zero_points != nullptr;
    if (c.codebook != nullptr) codebook.assign(c.codebook, c.codebook + c.entries);
  }
  int code(int64_t row, int64_t column) const override {
    const int flip = case_.is_signed ? symmetric_zero(bits) : 0;
    return unpack(case_.codes, case_.transposed ? column * k + row : row * n + column) ^ flip;
  }
  int zero_point(int64_t block_row, int64_t column) const override {
    return unpack(case_.zero_points, scale_at(block_row, column));
  }
  float scale(int64_t block_row, int64_t column) const override {
    const int64_t at = scale_at(block_row, column);
    return case_.half_scales ? cpu::half_to_float(static_cast<const uint16_t*>(case_.scales)[at])
                             : static_cast<const float*>(case_.scales)[at];
  }

 private:
  int64_t scale_at(int64_t block_row, int64_t column) const {
    return case_.transposed ? column * ((k + block - 1) / block) + block_row : block_row * n + column;
  }
  int unpack(const uint8_t* packed, int64_t index) const {
    int value = 0;
    for (int64_t bit = 0; bit < bits; ++bit) {
      const int64_t at = index * bits + bit;
      value |= (packed[at / 8] >> (at % 8) & 1) << bit;
    }
    return value;
  }
  const ProductCase& case_;
};

HARNESS_API const char* harness_error() { return last_error.c_str(); }

HARNESS_API int harness_matmul(const ProductCase* c) {
  return guarded([&] {
    const auto element = static_cast<Element>(c->element);
    const auto width = static_cast<std::size_t>(element_bytes(element));
    const auto skew = static_cast<std::size_t>(c->skew), m = static_cast<std::size_t>(c->m);
    const MatMul matmul(repack(CaseWeight(*c), element));
    const DeviceBuffer activations(c->activations, m * static_cast<std::size_t>(c->k) * width, skew);
    const DeviceBuffer output(nullptr, m * static_cast<std::size_t>(c->n) * width, skew);
    if (c->kind < 0) {
      matmul.run(activations.get(), output.get(), c->m, nullptr);
    } else {
      matmul.launch(static_cast<Kind>(c->kind), activations.get(), output.get(), static_cast<int>(c->m), nullptr);
    }
    read_back(c->output, output, m * static_cast<std::size_t>(c->n) * width);
  });
}

// Rows of the table whose transpose the case's weight is; `output` is [count, k].
HARNESS_API int harness_gather(const ProductCase* c, const void* indices, int32_t wide, int64_t count) {
  return guarded([&] {
    const auto element = static_cast<Element>(c->element);
    const auto bytes = static_cast<std::size_t>(count * c->k * element_bytes(element));
    const Gather gather(repack(CaseWeight(*c), element));
    const DeviceBuffer device_indices(indices, static_cast<std::size_t>(count) * (wide ? 8 : 4), 0);
    const DeviceBuffer output(nullptr, bytes, static_cast<std::size_t>(c->skew));
    gather.run(device_indices.get(), wide != 0, output.get(), count, nullptr);
    read_back(c->output, output, bytes);
  });
}

// The packed bytes of a weight, for tests of the layout: their count, and the bytes if there is room.
HARNESS_API int64_t harness_repack(const ProductCase* c, uint8_t* to, int64_t room, int64_t* offsets) {
  int64_t bytes = -1;
  guarded([&] {
    const PackedWeight packed = repack(CaseWeight(*c), static_cast<Element>(c->element));
    bytes = static_cast<int64_t>(packed.bytes.size());
    offsets[0] = static_cast<int64_t>(packed.scales_offset);
    offsets[1] = static_cast<int64_t>(packed.zeros_offset);
    if (bytes <= room) std::memcpy(to, packed.bytes.data(), packed.bytes.size());
  });
  return bytes;
}

}  // namespace onnxq::cuda
