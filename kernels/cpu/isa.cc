#include "cpu/isa.h"

#include <cstdlib>
#include <cstring>
#include <string>

#include "error.h"

#if defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif
#if defined(ONNXQ_X86)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

namespace onnxq::cpu {
namespace {

// Best first.
constexpr Isa kPreference[] = {Isa::kAmx, Isa::kAvx512Vnni, Isa::kAvxVnni, Isa::kAvx2, Isa::kNeon, Isa::kScalar};

#if defined(ONNXQ_X86)
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}

// CPUID leaf 7, subleaf 1, EAX bit 4; GCC 12 has no name for it.
bool has_avx_vnni() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a >> 4 & 1u) != 0;
}

bool has_avx512_vnni() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vnni");
}

// Tile registers are 8 KB of state per thread, which Linux hands out on request, once per process.
bool has_amx() {
#if defined(__linux__)
  constexpr unsigned kTiles = 1u << 24, kInt8 = 1u << 25;  // CPUID leaf 7, EDX
  constexpr long kRequestPermission = 0x1023;              // ARCH_REQ_XCOMP_PERM, asm/prctl.h
  constexpr long kTileData = 18;                           // XFEATURE_XTILEDATA
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & kTiles) == 0 || (d & kInt8) == 0) return false;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}
#elif defined(ONNXQ_ARM64)
bool has_dot_products() {
#if defined(__linux__)
  return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#else
  return true;  // every 64-bit Apple processor that runs a current system
#endif
}
#endif

Isa choose() {
  const char* forced = std::getenv("ONNXQ_ISA");
  if (forced == nullptr || *forced == '\0') {
    for (const Isa isa : kPreference)
      if (machine_has(isa)) return isa;
  }
  std::string known;
  for (const Isa isa : kPreference) {
    if (std::strcmp(forced, isa_name(isa)) == 0) {
      if (!machine_has(isa)) fail("ONNXQ_ISA=", forced, " is not supported by this machine or this build");
      return isa;
    }
    known += std::string(known.empty() ? "" : ", ") + isa_name(isa);
  }
  fail("ONNXQ_ISA=", forced, " is not known; known are ", known);
}

}  // namespace

bool machine_has(Isa isa) {
  switch (isa) {
    case Isa::kScalar: return true;
#if defined(ONNXQ_X86)
    case Isa::kAvx2: return has_avx2();
    case Isa::kAvxVnni: return has_avx2() && has_avx_vnni();
    case Isa::kAvx512Vnni: return has_avx512_vnni();
    case Isa::kAmx: return has_avx512_vnni() && has_amx();
#elif defined(ONNXQ_ARM64)
    case Isa::kNeon: return has_dot_products();
#endif
    default: return false;
  }
}

Isa select_isa() {
  static const Isa isa = choose();
  return isa;
}

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::kScalar: return "scalar";
    case Isa::kAvx2: return "avx2";
    case Isa::kAvxVnni: return "avxvnni";
    case Isa::kAvx512Vnni: return "avx512vnni";
    case Isa::kAmx: return "amx";
    case Isa::kNeon: return "neon";
  }
  return "unknown";
}

}  // namespace onnxq::cpu
