"""What a plugin hands in: objects of these three shapes. All of them return data and change nothing.

Arrays that a plugin is given are read-only; arrays that it returns belong to onnxq from then on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxq.affine import FloatArray, QuantizedWeight
from onnxq.scheme import NumberFormat, Scheme
from onnxq.survey import Site

__all__ = [
    "Calibrator",
    "Format",
    "NumberFormat",
    "Placement",
    "Replacement",
    "StoredWeight",
    "WeightEvidence",
    "WeightQuantizer",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightEvidence:
    """What calibration saw at the input of one matmul, or in the patches of one group of a convolution.

    Attributes:
        mean: float64 [K], mean of x per input channel; None when not observed.
        second_moment: float64 [K], mean of x^2 per input channel; None when not observed.
        gram: float64 [K, K], mean of x x^T; None when not observed.
    """

    mean: npt.NDArray[np.float64] | None = None
    second_moment: npt.NDArray[np.float64] | None = None
    gram: npt.NDArray[np.float64] | None = None


@runtime_checkable
class WeightQuantizer(Protocol):
    """Turns a float weight into codes, scales and zero points.

    A quantizer that weighs its errors by real activations has an attribute `needs`, "second_moment" or "gram": what it
    wants in its evidence. It must still do something sensible without (tables have no activations).
    """

    name: str

    def quantize(self, weight: FloatArray, scheme: Scheme, evidence: WeightEvidence | None) -> QuantizedWeight:
        """Quantize one weight.

        Args:
            weight: float32 [K, N], finite, read-only; of a convolution with evidence, the filters of one group.
            scheme: what to produce; `QuantizedWeight.scheme` must equal it.
            evidence: what calibration saw, or None without data.
        Returns:
            QuantizedWeight: codes [K, N] within qmin..qmax, scales positive, finite and exact in
            `scheme.scale_dtype` (onnxq.affine.stored_scale rounds them).
        """
        ...


@runtime_checkable
class Calibrator(Protocol):
    """Watches a tensor batch by batch and proposes the range to quantize it in.

    One instance watches one tensor. Instances over different batches are merged, in any order and
    grouping, with the same result to the last bit (where that cannot be, the calibrator says so).

    The constructor's arguments are what the user writes behind the name: `NAME:99.9` calls `cls(99.9)`,
    `NAME:width=3` calls `cls(width=3)`. It raises ValueError for a value it does not take. All of them need defaults.
    """

    name: str

    def update(self, rows: FloatArray) -> None:
        """See one batch.

        Args:
            rows: float32 [channels, values], read-only, finite. Per tensor there is one channel; per channel, the
                rows are the indices along the axis. The number of channels never changes, that of values may, also
                to 0. Attention-mask values have been taken out.
        """
        ...

    def merge(self, other: Self) -> None:
        """Take in what another instance, made with the same parameters, saw; `other` stays as it is."""
        ...

    def range(self, scheme: NumberFormat) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]:
        """The (low, high) to cover, each float [channels]; finite, low <= high. Called after at least one value."""
        ...

    def state(self) -> Mapping[str, npt.NDArray[np.generic]]:
        """Everything seen, as arrays, for saving."""
        ...

    def restore(self, state: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Become the instance that `state` came from; called on a fresh one with the same parameters."""
        ...


@dataclass(frozen=True, slots=True)
class StoredWeight:
    """Initializers of one quantized weight, by role (`codes`, `scales`, `zero_points`), in file layout."""

    tensors: Mapping[str, ir.TensorProtocol]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a format puts a quantized weight.

    Attributes:
        site: what is replaced.
        inputs: the node's other inputs: the activation of a matmul, the indices of a table, the activation
            (and bias) of a convolution.
        weight: initializer values by role, registered in the scope that reads them. For integer kernels also `bias`
            (int32) and `bias_scales`, where the node, or the Add behind a MatMul, has one.
        attributes: the original node's attributes.
        scheme: the number format of the weight.
        dtype: float type of the site's output.
        compute: what kernels may do with activations.
        opset: default-domain opset of the model.
    """

    site: Site
    inputs: tuple[ir.Value, ...]
    weight: Mapping[str, ir.Value]
    attributes: Mapping[str, ir.Attr]
    scheme: Scheme
    dtype: ir.DataType
    compute: str
    opset: int


@dataclass(frozen=True, slots=True)
class Replacement:
    """Nodes that stand in for a site's node, in order; the last one's first output is the site's output.

    Domains of the nodes that the model does not import yet are imported, in the nodes' `version` (1 when they have
    none).
    """

    nodes: Sequence[ir.Node]
    functions: Sequence[ir.Function] = ()


@runtime_checkable
class Format(Protocol):
    """Writes a quantized weight into the graph.

    A format whose nodes onnxruntime fuses otherwise where several of them read one activation has an attribute
    `shared_kernel`: the operator to expect there, in place of `kernel`'s.
    """

    name: str

    def refuses(self, site: Site, scheme: Scheme) -> str | None:
        """Why this format cannot write this site in this scheme; None when it can."""
        ...

    def store(self, site: Site, weight: QuantizedWeight) -> StoredWeight:
        """The tensors to put into the file; called once for all sites that share a weight."""
        ...

    def place(self, placement: Placement) -> Replacement:
        """The nodes to put in place of the site's node."""
        ...

    def kernel(self, site: Site, scheme: Scheme) -> str:
        """The operator that runs this site in stock onnxruntime's optimised graph, for the report to check."""
        ...

    def resident_bits(self, site: Site, scheme: Scheme) -> float:
        """Bits per weight that stock onnxruntime holds in memory once the session is loaded."""
        ...
