"""codebook: weights as indices into a table of values, behind CodebookMatMul; and nf4, the quantizer of NormalFloat-4.

Kernels look values up in registers, so a codebook costs them no more than integers do. Stock onnxruntime runs the
same file, but folds each weight to float32 when it loads: right, and as large as before.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import onnx_ir as ir

from onnxq import ops, plane_ops
from onnxq.affine import FloatArray, QuantizedWeight, stored_scale
from onnxq.planes import split_codes
from onnxq.plugin.contracts import Format, Placement, Replacement, StoredWeight, WeightEvidence, WeightQuantizer
from onnxq.plugin.hookspecs import hookimpl
from onnxq.scheme import Scheme
from onnxq.survey import Site
from onnxq_plugins.grouping import assemble, grouped

__all__ = ["Codebook", "NormalFloat", "normal_float_values", "onnxq_formats", "onnxq_weight_quantizers"]


class Codebook:
    """Indices in planes, one codebook per weight, a scale per block."""

    name = "codebook"

    def refuses(self, site: Site, scheme: Scheme) -> str | None:
        """Only matmul weights in blocks, by index."""
        if site.kind != "matmul":
            return f"a {site.kind} weight has no codebook kernel; leave it to --format auto"
        if not scheme.codebook or scheme.granularity != "blocked":
            return f"a codebook holds indices in blocks, not {scheme}; ask for one with --codebook nf4"
        return None

    def store(self, site: Site, weight: QuantizedWeight) -> StoredWeight:
        """Planes of indices, the codebook [entries, dim] and the scales, both of the type that scales have."""
        assert weight.codebook is not None
        planes = split_codes(weight.codes.astype(np.uint8), weight.scheme.bits)
        tensors: dict[str, ir.TensorProtocol] = {role: ir.Tensor(plane) for role, plane in planes.items()}
        tensors["codebook"] = ir.Tensor(weight.codebook.astype(weight.scheme.scale_dtype))
        tensors["scales"] = ir.Tensor(weight.scales.astype(weight.scheme.scale_dtype))
        return StoredWeight(tensors)

    def place(self, placement: Placement) -> Replacement:
        """One CodebookMatMul and its function."""
        scheme = placement.scheme
        roles = ("low", "high", "codebook", "scales")
        node = ir.node(
            plane_ops.codebook_op_name(scheme.bits),
            [placement.inputs[0], *(placement.weight[role] for role in roles if role in placement.weight)],
            domain=ops.DOMAIN,
            attributes={"block_size": scheme.block_size, "compute": placement.compute, "rows": placement.site.k},
        )
        return Replacement([node], [plane_ops.codebook_matmul(scheme.bits, opset=placement.opset)])

    def kernel(self, site: Site, scheme: Scheme) -> str:
        """A float MatMul: stock onnxruntime has folded the weight."""
        return "MatMul"

    def resident_bits(self, site: Site, scheme: Scheme) -> float:
        """The folded weight's own type."""
        return 8.0 * ir.DataType[site.dtype].itemsize


class NormalFloat:
    """NF4: sixteen values that split a normal distribution evenly, scaled by each block's largest magnitude."""

    name = "nf4"

    def quantize(self, weight: FloatArray, scheme: Scheme, evidence: WeightEvidence | None) -> QuantizedWeight:
        """Quantize [K, N]: each weight becomes the index of the nearest value."""
        groups = grouped(weight, scheme)  # [G, S, N]
        largest = np.abs(groups).max(axis=1, keepdims=True)
        scale = stored_scale(np.where(largest > 0, largest, 1).astype(np.float32), scheme.scale_dtype)
        values = normal_float_values()
        borders = (values[1:] + values[:-1]) / 2
        indices = np.searchsorted(borders, groups / scale).astype(np.float32)
        return assemble(indices, scale, None, k=weight.shape[0], scheme=scheme, codebook=values[:, None])


def normal_float_values() -> FloatArray:
    """The 16 values of NF4, ascending from -1 to 1, rounded to float16: float32 [16].

    Source: Dettmers et al. 2023 (QLoRA), section 3: quantiles of N(0, 1), eight for the positive half, seven for the
    negative one, and an exact zero; the outermost probability 0.9677083 is the mean of 1 - 1/32 and 1 - 1/30.
    """
    outermost = 0.9677083
    positive = [NormalDist().inv_cdf(p) for p in np.linspace(outermost, 0.5, 9)[:-1]]
    negative = [-NormalDist().inv_cdf(p) for p in np.linspace(outermost, 0.5, 8)[:-1]]
    values = np.array(sorted([*positive, 0.0, *negative]))
    return np.asarray(values / values.max(), np.float16).astype(np.float32)


@hookimpl
def onnxq_formats() -> Sequence[Format]:
    """Provide codebook."""
    return [Codebook()]


@hookimpl
def onnxq_weight_quantizers() -> Sequence[WeightQuantizer]:
    """Provide nf4."""
    return [NormalFloat()]
