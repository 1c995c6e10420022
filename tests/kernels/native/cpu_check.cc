// Every instruction set of this machine against the scalar kernels, without onnxruntime: the program that
// sanitizers and qemu run. Exits with 1 and says which case failed.
//
//     cpu_check [cases]
//
// int8 results must be equal to the bit: the dot products are exact and the float operations that follow
// come in one order. Float results too, since all use fused multiply-adds in the order of k.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "cpu/kernels.h"
#include "cpu/product.h"

namespace onnxq::cpu {
namespace {

// A weight and everything it points to.
struct Case {
  explicit Case(unsigned seed) : random(seed) {
    const int widths[] = {2, 3, 4, 5, 6, 8};
    bits = widths[pick(0, 5)];
    const int high_bits = bits == 6 ? 2 : bits % 2;
    source.k = pick(0, 1) == 1 ? 256 * pick(1, 3) : pick(1, 600);  // whole vectors are loaded differently from the rest
    source.n = pick(1, 150);
    source.block = 16 << pick(0, 4);
    source.low_bits = bits - high_bits;
    source.high_bits = high_bits;
    source.half_scales = pick(0, 1) == 1;
    const bool plain = high_bits == 0;
    source.storage = !plain ? Storage::kPlanes : pick(0, 1) == 1 ? Storage::kTransposed : Storage::kTensor;
    const bool zero_points_wanted = pick(0, 1) == 1;
    source.is_signed = plain && !zero_points_wanted;
    rows = pick(0, 3) == 0 ? pick(1, 150) : pick(1, 20);

    const auto per_block = static_cast<std::size_t>(source.blocks() * source.n);
    low = bytes(storage_bytes(source.low_bits));
    high = bytes(plain ? 0 : storage_bytes(source.high_bits));
    zero_points = bytes(per_block);  // enough for 8 bits each, read as source.zero_point_bits
    scales.resize(per_block);
    for (float& scale : scales) scale = static_cast<float>(pick(1, 1000)) / 1024.0f;
    for (const float scale : scales) half_scales.push_back(float_to_half(scale));
    a.resize(static_cast<std::size_t>(rows * source.k));
    for (float& value : a) value = static_cast<float>(pick(-4000, 4000)) / 997.0f;

    source.low = low.data();
    source.high = plain ? nullptr : high.data();
    source.scales = source.half_scales ? static_cast<const void*>(half_scales.data()) : scales.data();
    source.zero_points = zero_points_wanted ? zero_points.data() : nullptr;
    source.zero_point_bits = plain ? bits : 8;
  }

  int pick(int low_end, int high_end) { return std::uniform_int_distribution<int>(low_end, high_end)(random); }

  std::size_t storage_bytes(int width) const {
    if (source.storage == Storage::kPlanes) return static_cast<std::size_t>((source.k * width + 7) / 8 * source.n);
    return static_cast<std::size_t>((source.k * source.n * width + 7) / 8);
  }

  std::vector<uint8_t> bytes(std::size_t count) {
    std::vector<uint8_t> values(count);
    for (uint8_t& value : values) value = static_cast<uint8_t>(pick(0, 255));
    return values;
  }

  std::string describe() const {
    return "bits " + std::to_string(bits) + " K " + std::to_string(source.k) + " N " + std::to_string(source.n) +
           " M " + std::to_string(rows) + " block " + std::to_string(source.block) + " storage " +
           std::to_string(static_cast<int>(source.storage)) + (source.zero_points ? " zero points" : "");
  }

  std::mt19937 random;
  int bits;
  int64_t rows;
  WeightSource source;
  std::vector<uint8_t> low, high, zero_points;
  std::vector<float> scales, a;
  std::vector<uint16_t> half_scales;
};

// Real threads, so that ThreadSanitizer has something to see.
class Threads final : public Parallel {
 public:
  explicit Threads(int count) : count_(count) {}

 protected:
  void run(std::size_t tasks, void (*task)(void*, std::size_t), void* state) const override {
    std::vector<std::thread> threads;
    for (int t = 0; t < count_; ++t)
      threads.emplace_back([=, this] {
        for (auto i = static_cast<std::size_t>(t); i < tasks; i += static_cast<std::size_t>(count_)) task(state, i);
      });
    for (std::thread& thread : threads) thread.join();
  }

 private:
  int count_;
};

std::vector<float> multiply(const Case& test, Compute compute, Isa isa, int threads) {
  std::vector<float> y(static_cast<std::size_t>(test.rows * test.source.n));
  const Product product(test.source, compute);
  product.multiply({test.a.data(), false}, {y.data(), false}, test.rows, Threads(threads), kernels_for(isa));
  return y;
}

// The scalar kernel itself against the definition, in double precision.
bool close_to_definition(const Case& test, const std::vector<float>& y) {
  for (int64_t r = 0; r < test.rows; ++r)
    for (int64_t c = 0; c < test.source.n; ++c) {
      double sum = 0, size = 0;
      for (int64_t k = 0; k < test.source.k; ++k) {
        const int64_t b = k / test.source.block;
        const double w = (test.source.code(k, c) - test.source.zero_point(b, c)) * double{test.source.scale(b, c)};
        sum += w * test.a[static_cast<std::size_t>(r * test.source.k + k)];
        size += std::abs(w * test.a[static_cast<std::size_t>(r * test.source.k + k)]);
      }
      const double rounding = static_cast<double>(test.source.block + test.source.blocks() + 2) * 0x1p-24;
      if (std::abs(y[static_cast<std::size_t>(r * test.source.n + c)] - sum) > rounding * size) return false;
    }
  return true;
}

bool same_bits(const std::vector<float>& x, const std::vector<float>& y) {
  return std::memcmp(x.data(), y.data(), x.size() * sizeof(float)) == 0;
}

bool check(unsigned seed) {
  const Case test(seed);
  bool good = true;
  for (const Compute compute : {Compute::kInt8, Compute::kFloat}) {
    const std::vector<float> oracle = multiply(test, compute, Isa::kScalar, 1);
    if (compute == Compute::kFloat && !close_to_definition(test, oracle)) {
      std::printf("seed %u, scalar, float: %s\n", seed, test.describe().c_str());
      good = false;
    }
    for (const Isa isa : {Isa::kAvx2, Isa::kAvxVnni, Isa::kAvx512Vnni, Isa::kAmx, Isa::kNeon}) {
      if (!machine_has(isa)) continue;
      for (const int threads : {1, 3}) {
        if (same_bits(oracle, multiply(test, compute, isa, threads))) continue;
        std::printf("seed %u, %s, %s, %d threads: %s\n", seed, isa_name(isa),
                    compute == Compute::kInt8 ? "int8" : "float", threads, test.describe().c_str());
        good = false;
      }
    }
  }
  return good;
}

}  // namespace
}  // namespace onnxq::cpu

int main(int argc, char** argv) {
  const unsigned cases = argc > 1 ? static_cast<unsigned>(std::atoi(argv[1])) : 100;
  unsigned failed = 0;
  for (unsigned seed = 0; seed < cases; ++seed) failed += onnxq::cpu::check(seed) ? 0 : 1;
  for (const auto isa : {onnxq::cpu::Isa::kAvx2, onnxq::cpu::Isa::kAvxVnni, onnxq::cpu::Isa::kAvx512Vnni,
                         onnxq::cpu::Isa::kAmx, onnxq::cpu::Isa::kNeon})
    if (onnxq::cpu::machine_has(isa)) std::printf("checked %s\n", onnxq::cpu::isa_name(isa));
  std::printf("%u passed, %u failed\n", cases - failed, failed);
  return failed == 0 ? 0 : 1;
}
