// Hints to the operating system about pages of memory. None changes what a program computes.
#pragma once

#include <cstddef>

namespace onnxq::cpu {

// The range will be written and streamed as a whole: large pages save faults and address translations.
void advise_large(void* data, std::size_t bytes);

// The range is about to be written: its pages are made now, in one call instead of a fault each.
void populate(void* data, std::size_t bytes);

// The range was read for the last time for a while: its whole pages may leave memory. They come back from
// the file (or from swap) when they are read again; nothing is ever discarded.
void advise_unused(const void* data, std::size_t bytes);

}  // namespace onnxq::cpu
