"""A decoder layer of the real SmolLM2-135M, in float16, through `onnxq convert --target cuda`, the custom op, the
emulated driver and the real PTX: attention, norms and all, against the CPU kernels."""

import os

import numpy as np
import onnx
import pytest
from emulation import build
from onnx import TensorProto, helper, numpy_helper
from test_cuda_library import run

from benchmarks.models import SUITE, ModelFolder

onnxq = pytest.importorskip("onnxq")
MODULES = (build.Variant("half", 4), build.Variant("float", 4))
"""The CPU provider, which stands in for CUDA's, widens some float16 activations to float32."""

(SMOLLM2,) = [model.path(ModelFolder.default()) for model in SUITE if model.name == "smollm2-135m"]
HIDDEN, RESIDUAL = "/Gather", "/layers.0/Add_6"


def real_layer() -> tuple[onnx.ModelProto, np.ndarray]:
    """Layer 0 from the embedding's rows to the residual sum, in float16; and the embedding float16 [V, 576]."""
    whole = onnx.load(SMOLLM2)
    half = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT16, ["B", "S", 576])  # noqa: E731
    del whole.graph.value_info[:]
    whole.graph.value_info.extend([half(HIDDEN), half(RESIDUAL)])
    layer = onnx.utils.Extractor(whole).extract_model(["input_ids", HIDDEN], [RESIDUAL])
    for tensor in layer.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            with np.errstate(over="ignore"):  # the mask's -3e38 becomes -inf, which Softmax takes as well
                array = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    (table,) = [tensor for tensor in whole.graph.initializer if tensor.name == "token_embd.weight"]
    return layer, numpy_helper.to_array(table).astype(np.float16)


@pytest.mark.skipif(not SMOLLM2.exists(), reason="python -m benchmarks.models fetch smollm2-135m")
def test_a_real_layer_converted_for_cuda_matches_the_cpu_kernels(library, tmp_path):
    environment = os.environ | {
        "ONNXQ_CUDA_DRIVER": str(build.emulated_driver()),
        "ONNXQ_EMULATED_KERNELS": str(build.kernel_folder(MODULES)),
        "ONNXQ_EMULATED_HOST_MEMORY": "1",
    }
    proto, table = real_layer()
    onnx.save(proto, tmp_path / "layer.onnx")
    report = onnxq.convert(tmp_path / "layer.onnx", tmp_path / "packed.onnx", target="cuda", compute="float")
    sites = [site.decision for site in report.sites]
    assert {(made.site.k, str(made.scheme)) for made in sites} == {(576, "uint4 block 64"), (1536, "uint4 block 128")}
    assert [made.kernel for made in sites] == ["MatMulNBits on CUDA"] * 7
    packed = onnx.load(tmp_path / "packed.onnx")
    assert sum(node.op_type == "PackedMatMulZeroPoint" for node in packed.graph.node) == 7
    scales = [tensor.data_type for tensor in packed.graph.initializer if tensor.name.endswith(".scales")]
    assert scales == [TensorProto.FLOAT16] * 7

    ids = np.array([[504, 2365, 282, 260, 1201]], np.int64)
    feeds = {"input_ids": ids, HIDDEN: table[ids]}
    emulated_library = str(build.library(MODULES, emulated=True))
    (emulated,) = run(tmp_path, str(tmp_path / "packed.onnx"), emulated_library, feeds, environment)
    (cpu,) = run(tmp_path, str(tmp_path / "packed.onnx"), library, feeds)
    (unquantized,) = run(tmp_path, str(tmp_path / "layer.onnx"), library, feeds)
    assert emulated.dtype == np.float16

    def distance(other: np.ndarray) -> float:
        difference = emulated.astype(np.float64) - other.astype(np.float64)
        return float(np.linalg.norm(difference) / np.linalg.norm(other.astype(np.float64)))

    # Both sum in float32 and round to float16 after each product: a few of its units (2^-11) by the end of the layer.
    assert distance(cpu) < 4 * 2.0**-11
    assert distance(unquantized) > 16 * 2.0**-11, "the bound would not see 4 bits"
