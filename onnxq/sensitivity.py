"""Sensitivity: what each option of each unit costs, in damage at the model's outputs.

1. Proxy, for every option: how much noise rounding puts on the products of a weight, from a sample of its columns:

       sum_k m_k sum_n (W - W~)^2[k, n]  /  sum_k m_k sum_n W^2[k, n]        m_k: mean of x_k^2, 1 without data

   the quadratic output error tr(D^T H D) with the diagonal of H, which is what counts for errors of rounding: they are
   hardly correlated along K. It rounds to nearest whatever the method: methods gain alike at neighbouring widths.
2. End to end, for one option of each unit: the float model runs with that unit's weights rounded, and its outputs are
   compared with the float ones. That number over the option's proxy turns the proxies of the unit into damage.

Without data there is no second step, and the proxy counts alike for all units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxq.affine import FloatArray, dequantize
from onnxq.allotment import Unit
from onnxq.damage import DamageMeter, class_like
from onnxq.data import Data
from onnxq.decide import Decision
from onnxq.model import Model
from onnxq.moments import MomentSource, Need
from onnxq.plugin.contracts import WeightEvidence
from onnxq.plugin.registry import Registry
from onnxq.scratch import scratch_copy
from onnxq.session import Feed, Session, SessionOptions
from onnxq.state import StateLoop, state_pairs
from onnxq.survey import find_nodes
from onnxq.weights import read_weight

__all__ = ["Sensitivity", "measure_sensitivity"]

_COLUMNS = 512
"""Output channels that the proxy looks at: the mean error of so many is within a few percent of that of all."""

_MOMENT_BATCHES = 8
_DAMAGE_BATCHES = 2

_COMPARED = 1 << 22
"""Numbers of an output that are compared per batch: rows of a large vocabulary are thinned out. Half as many, some
forty tokens of a large vocabulary, are enough to do without the second batch."""

_REFERENCE_BITS = 4
"""Width of the option that runs end to end: coarse enough to rise above the noise of float32, fine enough to be in
the range where damage grows with the square of the error."""

_LEAST_SHARE = 0.1
"""Least damage per proxy of a unit, as a share of the median: a few batches may miss what a weight is needed for."""

_MOST_DAMAGE = 1e6
"""Stands for outputs that are no longer finite."""

Evidence = Callable[[str], Sequence[WeightEvidence]]


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """Costs of everything that can be chosen.

    Attributes:
        costs: of each unit's options, finite, in the same unit of measure for all.
        origin: what they are, in words.
    """

    costs: Mapping[Unit, tuple[float, ...]]
    origin: str


def measure_sensitivity(
    model: Model,
    units: Sequence[Unit],
    registry: Registry,
    *,
    data: Data | None,
    options: SessionOptions,
    state: Mapping[str, str],
    on_unit: Callable[[Unit], None] = lambda unit: None,
) -> Sensitivity:
    """Measure what each option of each unit costs.

    Args:
        model: normalised.
        units: from onnxq.allotment.
        registry: where the weight quantizers are.
        data: calibration batches; None: by the weights alone.
        options: of the sessions.
        state: outputs fed back to inputs, see onnxq.state.
        on_unit: called before each unit that is measured end to end, for progress.
    """
    chosen = [unit for unit in units if len(unit.options) > 1]
    fixed: dict[Unit, tuple[float, ...]] = {unit: (0.0,) for unit in units if len(unit.options) == 1}
    rounding = _Rounding(find_nodes(model.ir), registry)
    if data is None:
        proxies = fixed | {unit: rounding.proxies(unit, lambda node: ()) for unit in chosen}
        return Sensitivity({unit: proxies[unit] for unit in units}, "relative errors of the weights")
    some = Data(data.origin, lambda: islice(data.batches(), _MOMENT_BATCHES))
    with MomentSource(model, _needs(chosen), some, options=options, state=state) as source:
        proxies = fixed | {unit: rounding.proxies(unit, source.evidence) for unit in chosen}
    damage = _end_to_end(model, chosen, rounding, data=data, options=options, state=state, on_unit=on_unit)
    factors = _factors(chosen, proxies, damage)
    return Sensitivity(
        {unit: tuple(factors.get(unit, 0.0) * proxy for proxy in proxies[unit]) for unit in units},
        f"damage at the outputs, weight by weight, on {data.origin}",
    )


def _needs(units: Sequence[Unit]) -> dict[str, Need]:
    """The moments that the proxies weigh by."""
    decisions = [decision for unit in units for decision in unit.options[0]]
    matmuls = [decision.site.node for decision in decisions if decision.site.kind in ("matmul", "matmul_transposed")]
    return dict.fromkeys(matmuls, "second_moment")


def _factors(
    units: Sequence[Unit], proxies: Mapping[Unit, Sequence[float]], damage: Mapping[Unit, float]
) -> dict[Unit, float]:
    """Damage per proxy of each unit; the median where it was not measured, and at least a share of that."""
    measured = {}
    for unit, found in damage.items():
        proxy = proxies[unit][_reference(unit)]
        if proxy > 0:
            measured[unit] = found / proxy
    usual = float(np.median(list(measured.values()))) if measured else 1.0
    return {unit: max(measured.get(unit, usual), _LEAST_SHARE * usual) for unit in units}


class _Rounding:
    """Weights as they would be after rounding to nearest."""

    def __init__(self, nodes: Mapping[str, ir.Node], registry: Registry) -> None:
        self._nodes, self._rtn = nodes, registry.weight_quantizer("rtn")

    def proxies(self, unit: Unit, evidence_of: Evidence) -> tuple[float, ...]:
        """Mean over the unit's weights of relative noise power, for each option."""
        sums = np.zeros(len(unit.options))
        for decision in _owners(unit.options[0]):
            readers = [other for other in unit.options[0] if other.site.storage == decision.site.storage]
            known = [moments for reader in readers for moments in evidence_of(reader.site.node)]
            weight = read_weight(self._nodes, decision.site)
            step = -(-weight.shape[1] // _COLUMNS)
            sample = np.ascontiguousarray(weight[:, ::step])
            moment = known[0].second_moment if known else None
            weighing = np.ones(len(sample)) if moment is None else moment
            signal = _power(sample, weighing)
            for index, option in enumerate(unit.options):
                scheme = next(other for other in option if other.site.node == decision.site.node)
                sums[index] += _power(self._rounded(sample, scheme) - sample, weighing) / signal if signal else 0.0
        return tuple(float(total) for total in sums / len(_owners(unit.options[0])))

    def overrides(self, option: Sequence[Decision]) -> dict[str, npt.NDArray[np.generic]]:
        """The rounded weights of an option as the graph holds them, by name of the initializer."""
        rounded = {}
        for decision in _owners(option):
            site = decision.site
            weight = self._rounded(read_weight(self._nodes, site), decision)
            dtype = ir.DataType[site.dtype].numpy()
            rounded[site.weight] = np.ascontiguousarray(weight if site.kind == "matmul" else weight.T, dtype=dtype)
        return rounded

    def _rounded(self, weight: FloatArray, decision: Decision) -> FloatArray:
        with self._rtn.guarded(decision.site.node) as plugin:
            return dequantize(plugin.quantize(weight, decision.scheme, None))


def _end_to_end(
    model: Model,
    units: Sequence[Unit],
    rounding: _Rounding,
    *,
    data: Data,
    options: SessionOptions,
    state: Mapping[str, str],
    on_unit: Callable[[Unit], None],
) -> dict[Unit, float]:
    """Damage at the outputs by one option of each unit whose weights the main graph holds, the others in float."""
    reachable = [unit for unit in units if all(not decision.site.scope for decision in unit.options[0])]
    weights = [decision.site.weight for unit in reachable for decision in unit.options[0]]
    outputs = [value.name for value in model.ir.graph.outputs if value.name]
    loop = StateLoop(model.ir.graph, state_pairs(model.ir.graph, state))
    with scratch_copy(model) as scratch:
        session, _ = scratch.session(options, outputs, overridable=weights)
        feeds: list[Feed] = []
        expected: list[dict[str, npt.NDArray[np.floating]]] = []
        for feed in islice(data.batches(), _DAMAGE_BATCHES):
            feeds.append(loop.complete(feed))
            expected.append(_compared(session, feeds[-1], outputs))
            if sum(value.size for value in expected[-1].values()) > _COMPARED // 2:
                break
        damage = {}
        for unit in reachable:
            on_unit(unit)
            changed = rounding.overrides(unit.options[_reference(unit)])
            got = (_compared(session, {**feed, **changed}, outputs) for feed in feeds)
            damage[unit] = _difference(expected, got)
    return damage


def _compared(session: Session, feed: Feed, outputs: Sequence[str]) -> dict[str, npt.NDArray[np.floating]]:
    """The outputs that are compared: rows of scores where there are any, else all floats in one row; thinned out."""
    values = {
        name: value
        for name, value in session.run(feed, outputs).items()
        if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.size
    }
    scores = {name: value for name, value in values.items() if class_like(name, value.shape)}
    thinned = {}
    for name, value in (scores or values).items():
        rows = value.reshape(-1, value.shape[-1]) if scores else value.ravel()
        thinned[name] = rows[:: -(-rows.size // _COMPARED)].copy()
    return thinned


def _difference(
    expected: Sequence[Mapping[str, npt.NDArray[np.floating]]], got: Iterator[Mapping[str, npt.NDArray[np.floating]]]
) -> float:
    """Sum over the outputs of their KL divergence, or of their noise over their signal power."""
    meters: dict[str, DamageMeter] = {}
    for before, after in zip(expected, got, strict=True):
        for name, rows in before.items():
            if rows.shape != after[name].shape:  # it follows the data, e.g. boxes that were found
                continue
            meter = meters.setdefault(name, DamageMeter(class_like=class_like(name, rows.shape)))
            meter.update(rows, after[name])
    total = 0.0
    for meter in meters.values():
        damage = meter.result()
        total += damage.kl if damage.kl is not None else 10 ** (-damage.sqnr_db / 10)
        total = total if damage.finite else _MOST_DAMAGE
    return float(np.clip(np.nan_to_num(total, nan=_MOST_DAMAGE), 0.0, _MOST_DAMAGE))


def _reference(unit: Unit) -> int:
    """Index of the option that runs end to end: of the least bits from 4 on, with the smallest blocks."""
    schemes = [option[0].scheme for option in unit.options]
    wide = [index for index, scheme in enumerate(schemes) if scheme.bits >= _REFERENCE_BITS] or range(len(schemes))
    return min(wide, key=lambda index: (schemes[index].bits, schemes[index].block_size))


def _owners(decisions: Sequence[Decision]) -> list[Decision]:
    """One decision for each weight."""
    return list({decision.site.storage: decision for decision in reversed(decisions)}.values())[::-1]


def _power(weight: FloatArray, weighing: npt.NDArray[np.floating]) -> float:
    return float(np.einsum("kn,kn->k", weight, weight, dtype=np.float64) @ weighing)
