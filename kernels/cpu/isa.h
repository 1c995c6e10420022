// Which instruction set the kernels use: the best one of this machine, or the one ONNXQ_ISA names.
#pragma once

namespace onnxq::cpu {

enum class Isa {
  kScalar,      // readable C++, the oracle of all others
  kAvx2,        // AVX2 + FMA + F16C
  kAvxVnni,     // the same with 256-bit dot products
  kAvx512Vnni,  // AVX-512 F, BW, DQ, VL, VBMI and VNNI
  kAmx,         // the same with int8 tiles for many rows
  kNeon,        // aarch64 with dot products
};

// Throws Error if ONNXQ_ISA names a path that is unknown, not built, or not of this machine.
// Reads the environment once per process.
Isa select_isa();

// Whether this machine and this build have a path.
bool machine_has(Isa isa);

// The name that ONNXQ_ISA takes and `onnxq doctor` prints.
const char* isa_name(Isa isa);

}  // namespace onnxq::cpu
