// What one core of this machine can do: bytes read per second from memory, and int8 dot products.
// Prints two numbers, GB/s and GOPS. Compiled by machine.py with the flags of this machine.
#include <immintrin.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Best of 5 passes over 256 MB, larger than any cache slice that a guest is given.
double read_bandwidth() {
  constexpr std::size_t kBytes = std::size_t{256} << 20;
  auto* data = static_cast<char*>(std::aligned_alloc(64, kBytes));
  std::memset(data, 1, kBytes);
  double best = 0;
  for (int pass = 0; pass < 5; ++pass) {
    const double start = seconds();
    __m256i sums[4] = {};
    for (std::size_t i = 0; i < kBytes; i += 128)
      for (int j = 0; j < 4; ++j)
        sums[j] = _mm256_add_epi8(sums[j], _mm256_load_si256(reinterpret_cast<__m256i*>(data + i + 32 * j)));
    __asm__ volatile("" : : "x"(sums[0]), "x"(sums[1]), "x"(sums[2]), "x"(sums[3]));
    const double rate = kBytes / (seconds() - start) / 1e9;
    if (rate > best) best = rate;
  }
  std::free(data);
  return best;
}

// 12 independent chains hide the latency of a dot product. 64 (or 32) products and as many additions each.
double int8_peak() {
#if defined(__AVX512VNNI__)
#define DOT(n) "vpdpbusd %%zmm0, %%zmm0, %%zmm" #n "\n"
  constexpr double kOperations = 128;
#elif defined(__AVXVNNI__)
#define DOT(n) "{vex} vpdpbusd %%ymm0, %%ymm0, %%ymm" #n "\n"
  constexpr double kOperations = 64;
#else
#define DOT(n) "vpmaddubsw %%ymm0, %%ymm0, %%ymm" #n "\n"
  constexpr double kOperations = 64;
#endif
  constexpr long kRounds = 20'000'000;
  double best = 0;
  for (int pass = 0; pass < 5; ++pass) {
    const double start = seconds();
    for (long i = 0; i < kRounds; ++i)
      __asm__ volatile(DOT(1) DOT(2) DOT(3) DOT(4) DOT(5) DOT(6) DOT(7) DOT(8) DOT(9) DOT(10) DOT(11) DOT(12)
                       :
                       :
                       : "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11",
                         "xmm12");
    const double rate = kRounds * 12 * kOperations / (seconds() - start) / 1e9;
    if (rate > best) best = rate;
  }
  return best;
}

}  // namespace

int main() { std::printf("%.2f %.1f\n", read_bandwidth(), int8_peak()); }
