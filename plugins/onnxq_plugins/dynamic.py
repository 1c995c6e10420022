"""dynamic: int8 weights, activations quantized when the model runs. No calibration; every onnxruntime knows it.

    A -> DynamicQuantizeLinear -> MatMulInteger(W int8) -> Cast -> Mul(scale of A * scales of W)

Onnxruntime fuses this into DynamicQuantizeMatMul. Where several products read one activation, it quantizes that once
and fuses the rest of each into MatMulIntegerToFloat. DynamicQuantizeLinear is float32 only: in other models a Cast
stands on either side.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnxq.affine import QuantizedWeight
from onnxq.plugin.contracts import Format, Placement, Replacement, StoredWeight
from onnxq.plugin.hookspecs import hookimpl
from onnxq.scheme import Scheme
from onnxq.survey import Site

__all__ = ["Dynamic", "onnxq_formats"]


class Dynamic:
    """Standard ONNX operators around MatMulInteger."""

    name = "dynamic"

    shared_kernel = "MatMulIntegerToFloat"

    def refuses(self, site: Site, scheme: Scheme) -> str | None:
        """8-bit matmul weights, one scale per output channel or one in all."""
        if site.kind != "matmul":
            return "only products with a matrix are fused with the quantization of their activations"
        if scheme.bits != 8 or scheme.granularity == "blocked" or scheme.codebook:
            return f"integer kernels take 8-bit weights per channel or per tensor, not {scheme}"
        if not scheme.symmetric and scheme.granularity == "per_axis":
            return "onnxruntime's integer kernels want one zero point for all channels; use symmetric weights"
        return None

    def store(self, site: Site, weight: QuantizedWeight) -> StoredWeight:
        """Codes [K, N]; scales float32 [N] or a single number; the zero point, where there is one."""
        shape = () if weight.scheme.granularity == "per_tensor" else (-1,)
        dtype = weight.scheme.dtype
        tensors: dict[str, ir.TensorProtocol] = {
            "codes": ir.Tensor(np.ascontiguousarray(weight.codes).astype(dtype.numpy()), dtype=dtype),
            "scales": ir.Tensor(weight.scales.astype(np.float32).reshape(shape), dtype=ir.DataType.FLOAT),
        }
        if weight.zero_points is not None:
            tensors["zero_points"] = ir.Tensor(weight.zero_points.astype(dtype.numpy()).reshape(shape), dtype=dtype)
        return StoredWeight(tensors)

    def place(self, placement: Placement) -> Replacement:
        """The five nodes of the pattern, and a Cast on either side where the model is not float32."""
        weight, narrow = placement.weight, placement.dtype != ir.DataType.FLOAT
        nodes = []

        def add(op_type: str, inputs: Sequence[ir.Value], outputs: int = 1, **attributes: int) -> Sequence[ir.Value]:
            nodes.append(ir.node(op_type, inputs, attributes=attributes, num_outputs=outputs))
            return nodes[-1].outputs

        activation = placement.inputs[0]
        if narrow:
            (activation,) = add("Cast", [activation], to=int(ir.DataType.FLOAT))
        codes, scale, zero_point = add("DynamicQuantizeLinear", [activation], outputs=3)
        operands = [codes, weight["codes"], zero_point]
        if "zero_points" in weight:
            operands.append(weight["zero_points"])
        (sums,) = add("MatMulInteger", operands)
        (floats,) = add("Cast", [sums], to=int(ir.DataType.FLOAT))
        (scales,) = add("Mul", [scale, weight["scales"]])
        (product,) = add("Mul", [floats, scales])
        if narrow:
            add("Cast", [product], to=int(placement.dtype))
        return Replacement(nodes)

    def kernel(self, site: Site, scheme: Scheme) -> str:
        """All of it in one, where no other product reads the same activation."""
        return "DynamicQuantizeMatMul"

    def resident_bits(self, site: Site, scheme: Scheme) -> float:
        """Codes, which MLAS packs once in the same size, and float32 scales."""
        return 8 + (32 / site.k if scheme.granularity == "per_axis" else 0)


@hookimpl
def onnxq_formats() -> Sequence[Format]:
    """Provide dynamic."""
    return [Dynamic()]
