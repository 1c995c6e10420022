"""What a plugin hands in: objects of these three shapes. All of them return data and change nothing.

Arrays that a plugin is given are read-only; arrays that it returns belong to onnxq from then on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxq.affine import FloatArray, QuantizedWeight
from onnxq.scheme import Scheme
from onnxq.survey import Site

__all__ = [
    "Calibrator",
    "Format",
    "Placement",
    "Replacement",
    "StoredWeight",
    "WeightEvidence",
    "WeightQuantizer",
]


@dataclass(frozen=True, slots=True)
class WeightEvidence:
    """What calibration saw at the input of one matmul.

    Attributes:
        second_moment: float64 [K], mean of x^2 per input channel; None when not observed.
        gram: float64 [K, K], mean of x x^T; None when not observed.
    """

    second_moment: npt.NDArray[np.float64] | None = None
    gram: npt.NDArray[np.float64] | None = None


@runtime_checkable
class WeightQuantizer(Protocol):
    """Turns a float weight into codes, scales and zero points."""

    name: str

    def quantize(self, weight: FloatArray, scheme: Scheme, evidence: WeightEvidence | None) -> QuantizedWeight:
        """Quantize one weight.

        Args:
            weight: float32 [K, N], finite, read-only.
            scheme: what to produce; `QuantizedWeight.scheme` must equal it.
            evidence: what calibration saw, or None without data.
        Returns:
            QuantizedWeight: codes [K, N] within qmin..qmax, scales positive, finite and exact in float16.
        """
        ...


@runtime_checkable
class Calibrator(Protocol):
    """Watches a tensor batch by batch and proposes the range to quantize it in.

    One instance watches one tensor. Instances over different batches are merged, in any order and
    grouping, with the same result to the last bit.
    """

    name: str

    def update(self, array: npt.NDArray[np.generic]) -> None:
        """See one batch: any shape, possibly empty, read-only."""
        ...

    def merge(self, other: Self) -> None:
        """Take in what another instance of the same calibrator saw."""
        ...

    def range(self, scheme: Scheme) -> tuple[float, float]:
        """The (low, high) to cover; finite, low <= high."""
        ...

    def state(self) -> Mapping[str, npt.NDArray[np.generic]]:
        """Everything seen, as arrays, for saving."""
        ...

    @classmethod
    def from_state(cls, state: Mapping[str, npt.NDArray[np.generic]], **parameters: Any) -> Self:
        """The instance that `state` came from."""
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
        weight: initializer values by role, registered in the scope that reads them.
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
    """Nodes that stand in for a site's node, in order; the last one's first output is the site's output."""

    nodes: Sequence[ir.Node]
    functions: Sequence[ir.Function] = ()


@runtime_checkable
class Format(Protocol):
    """Writes a quantized weight into the graph."""

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
