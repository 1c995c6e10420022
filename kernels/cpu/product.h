// Y = A @ W for one packed weight: prepares the rows of A, cuts Y into tiles, hands them to threads.
#pragma once

#include <cstdint>

#include "cpu/kernels.h"
#include "cpu/panel.h"
#include "cpu/parallel.h"

namespace onnxq::cpu {

// A row-major matrix of float32 or float16.
struct Matrix {
  const void* data = nullptr;
  bool half = false;
};
struct MutableMatrix {
  void* data = nullptr;
  bool half = false;
};

class Product {
 public:
  Product(const WeightSource& source, Compute compute) : weight_(source), compute_(compute) {}
  // The values of a codebook are no integers, so its products are float whatever a node allows.
  explicit Product(const CodebookSource& source) : weight_(source), compute_(Compute::kFloat) {}

  // a [rows, k], y [rows, n]. Safe to call from several threads at once.
  void multiply(Matrix a, MutableMatrix y, int64_t rows, const Parallel& parallel, const Kernels& kernels) const;

  const PackedWeight& weight() const { return weight_; }

 private:
  PackedWeight weight_;
  Compute compute_;
};

}  // namespace onnxq::cpu
