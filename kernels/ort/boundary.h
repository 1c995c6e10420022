// Where C++ ends: no exception crosses into onnxruntime.
#pragma once

#include <exception>
#include <new>
#include <string>

#include "error.h"
#include "ort/api.h"

namespace onnxq::ort {

// Runs `body`; an exception becomes an OrtStatus whose message begins with `where`.
template <class Body>
OrtStatus* guarded(const Api& api, const std::string& where, Body&& body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const Error& error) {
    return api.make_status(ORT_INVALID_ARGUMENT, where + ": " + error.what());
  } catch (const std::bad_alloc&) {
    return api.make_status(ORT_FAIL, where + ": out of memory");
  } catch (const std::exception& error) {
    return api.make_status(ORT_FAIL, where + ": " + error.what());
  }
}

}  // namespace onnxq::ort
