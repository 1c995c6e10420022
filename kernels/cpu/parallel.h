// A loop whose iterations may run on several threads. The threads belong to onnxruntime.
#pragma once

#include <cstddef>

namespace onnxq::cpu {

class Parallel {
 public:
  virtual ~Parallel() = default;

  // Calls body(i) once for every i < count, in any order, and returns when all are done.
  // The body must not throw: it runs inside onnxruntime.
  template <class Body>
  void each(std::size_t count, const Body& body) const {
    if (count == 1) return body(std::size_t{0});
    if (count > 1)
      run(count, [](void* state, std::size_t i) { (*static_cast<const Body*>(state))(i); },
          const_cast<Body*>(&body));
  }

 protected:
  virtual void run(std::size_t count, void (*task)(void*, std::size_t), void* state) const = 0;
};

}  // namespace onnxq::cpu
