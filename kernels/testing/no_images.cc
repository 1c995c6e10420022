// Stands in for the embedded fatbins where only the emulated driver reads them: it looks at the magic number.
#include "cuda/modules.h"

namespace onnxq::cuda {
namespace {
constexpr unsigned kMagic = 0xba55ed50;
}

#define ONNXQ_WIDTHS(element) \
  {element "_2", &kMagic}, {element "_3", &kMagic}, {element "_4", &kMagic}, {element "_5", &kMagic}, \
      {element "_6", &kMagic}, {element "_8", &kMagic}, {element "_codebook2", &kMagic}, \
      {element "_codebook3", &kMagic}, {element "_codebook4", &kMagic}

const Image kImages[] = {ONNXQ_WIDTHS("half"), ONNXQ_WIDTHS("bfloat16"), ONNXQ_WIDTHS("float"), {nullptr, nullptr}};

}  // namespace onnxq::cuda
