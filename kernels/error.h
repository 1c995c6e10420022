// The one exception of this library. It never leaves it: boundary.h turns it into an OrtStatus.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace onnxq {

// Usual cause: a node whose shapes, attributes or constants break the contract of its op.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// fail("K=", 5, " is not ", 6): throws Error with the pieces joined.
template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  throw Error(text.str());
}

}  // namespace onnxq
