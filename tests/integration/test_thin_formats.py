"""dynamic and matmulnbits end to end: predicted kernels are found, every layer is measured, the damage is bounded."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import op_types
from tiny_models import TINY_MODELS

import onnxq

LEAST_DB = {"dynamic": 25.0, "matmulnbits": 30.0}
"""At the outputs, 8-bit weights: dynamic activations have one range for all tokens, MatMulNBits one per block."""


def converted(folder: Path, proto: onnx.ModelProto, **wishes):
    onnx.save(proto, folder / "float.onnx")
    return onnxq.convert(folder / "float.onnx", folder / "q.onnx", **wishes)


@pytest.mark.parametrize("form", ["dynamic", "matmulnbits"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16], ids=["float32", "float16"])
@pytest.mark.parametrize("name", ["mlp", "transformer"])
def test_kernels_are_found_and_damage_is_bounded(tmp_path, name, dtype, form):
    report = converted(tmp_path, TINY_MODELS[name](dtype), format=form, bits=8)
    products = [site for site in report.sites if site.decision.format == form]
    assert products
    assert {site.found == site.decision.kernel for site in report.sites} == {True}
    assert {site.damage is not None for site in products} == {True}
    assert min(site.damage.sqnr_db for site in products) > 20
    for output in report.verdict.outputs.values():
        assert output.sqnr_db > LEAST_DB[form]


def test_matmulnbits_needs_no_new_opset_and_every_number_is_in_the_file(tmp_path):
    report = converted(tmp_path, TINY_MODELS["mlp"](np.float32), format="matmulnbits", bits=4, block_size=32)
    proto = onnx.load(tmp_path / "q.onnx")
    imports = {item.domain: item.version for item in proto.opset_import}
    assert imports == {"": 17, "com.microsoft": 1}
    assert op_types(proto.graph).count("MatMulNBits") == len(report.sites) == 3
    sizes = {site.decision.site.node: 8 * site.stored_bytes / site.decision.site.elements for site in report.sites}
    # K = 72, N = 72: three blocks of 16 bytes, a float32 scale each, and two bytes of zero points per channel
    assert sizes["/fc2"] == 8 * (3 * 16 + 3 * 4 + 2) / 72
