// Operations of a whole warp: they happen when all 32 lanes have arrived at the same instruction.
#include <cmath>
#include <string>

#include "machine.h"
#include "semantics.h"

namespace emu {
namespace {

enum Operation : uint32_t { kMmaHalf = 1, kMmaBfloat = 2 };

// Brings this lane's argument; the last lane to arrive runs `act` for all.
template <class Act>
void gather(uint32_t operation, uint32_t site, void* argument, Act act) {
  const uint32_t lane = machine->thread->index % 32;
  Warp& warp = machine->cta->warps[machine->thread->index / 32];
  if (warp.arrived == 0) {
    warp.operation = operation;
    warp.site = site;
  } else if (warp.operation != operation || warp.site != site) {
    fault(Fault::kDivergent, site, "another lane waits at instruction " + std::to_string(warp.site));
  }
  warp.arguments[lane] = argument;
  warp.arrived |= 1u << lane;
  if (warp.arrived != ~0u) {
    suspend(State::kWarp);
    return;
  }
  act(warp.arguments);
  warp.arrived = 0;
  const uint32_t first = machine->thread->index / 32 * 32;
  for (uint32_t t = first; t < first + 32; ++t)
    if (machine->cta->threads[t]->state == State::kWarp) machine->cta->threads[t]->state = State::kReady;
}

// Tensor cores add the exact products of 8 depths and the accumulator after aligning them to the
// largest, cutting what falls below: at least this many bits are kept beyond float32's 24.
constexpr int kExtraBits = 1;
constexpr int kSumDepth = 8;

float truncated_sum(double accumulator, const double* products) {
  double largest = std::fabs(accumulator);
  for (int k = 0; k < kSumDepth; ++k) largest = std::fmax(largest, std::fabs(products[k]));
  double sum = accumulator;
  if (largest == 0 || !std::isfinite(largest)) {
    for (int k = 0; k < kSumDepth; ++k) sum += products[k];
    return static_cast<float>(sum);
  }
  int exponent;
  std::frexp(largest, &exponent);
  const double unit = std::ldexp(1.0, exponent - 24 - kExtraBits);
  sum = std::trunc(accumulator / unit);
  for (int k = 0; k < kSumDepth; ++k) sum += std::trunc(products[k] / unit);
  sum *= unit;
  const float rounded = static_cast<float>(sum);
  return std::fabs(static_cast<double>(rounded)) > std::fabs(sum) ? std::nextafterf(rounded, 0.0f) : rounded;
}

// d = a * b + c with the fragment layout of the PTX ISA, "Matrix Fragments for mma.m16n8k16": lane
// = 4 * group + quad holds a(group, 2 quad), a(group + 8, 2 quad), then both at k + 8; b(2 quad, group),
// b(2 quad + 8, group); c(group, 2 quad), c(group, 2 quad + 1), then both at row + 8.
template <class Widen>
void multiply(void** arguments, Widen widen) {
  double a[16][16], b[16][8];
  for (int lane = 0; lane < 32; ++lane) {
    const Mma& m = *static_cast<const Mma*>(arguments[lane]);
    const int group = lane / 4, quad = lane % 4;
    for (int half = 0; half < 2; ++half) {
      const auto value = [&](uint32_t word) { return widen(static_cast<uint16_t>(word >> (16 * half))); };
      const int k = 2 * quad + half;
      a[group][k] = value(m.a[0]);
      a[group + 8][k] = value(m.a[1]);
      a[group][k + 8] = value(m.a[2]);
      a[group + 8][k + 8] = value(m.a[3]);
      b[k][group] = value(m.b[0]);
      b[k + 8][group] = value(m.b[1]);
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    Mma& m = *static_cast<Mma*>(arguments[lane]);
    for (int r = 0; r < 4; ++r) {
      const int row = lane / 4 + r / 2 * 8, column = lane % 4 * 2 + r % 2;
      double products[16], sum = as_float(m.c[r]);
      for (int k = 0; k < 16; ++k) products[k] = a[row][k] * b[k][column];
      if (machine->options.truncate_sums) {
        for (int k = 0; k < 16; k += kSumDepth) sum = truncated_sum(sum, products + k);
      } else {
        for (double product : products) sum += product;
      }
      m.d[r] = as_bits(static_cast<float>(sum));
    }
  }
  machine->report.mma += 1;
}

}  // namespace

void mma_half(Mma& lane, uint32_t site) {
  gather(kMmaHalf, site, &lane, [](void** lanes) { multiply(lanes, [](uint16_t h) { return half_value(h); }); });
}

void mma_bfloat(Mma& lane, uint32_t site) {
  gather(kMmaBfloat, site, &lane, [](void** lanes) { multiply(lanes, [](uint16_t h) { return bfloat_value(h); }); });
}

}  // namespace emu
