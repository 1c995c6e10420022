"""Evidence: what calibration saw of each tensor, mergeable, saved without pickle, bound to one model.

A file of evidence is an .npz: `evidence` is JSON (what was watched, by which calibrator, how much was seen), every
other entry is one array of one calibrator's state, named `INDEX/KEY`.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxq.affine import FloatArray
from onnxq.errors import DataError, PlanError
from onnxq.output import write_bytes
from onnxq.plugin.contracts import Calibrator, NumberFormat
from onnxq.plugin.parameters import new_calibrator
from onnxq.plugin.registry import Plugin, Registry

__all__ = ["Evidence", "Observation", "Wish"]

_VERSION = 1
_INDEX = "evidence"


@dataclass(frozen=True, slots=True)
class Wish:
    """One tensor that somebody wants the range of.

    Attributes:
        tensor: name of a value of the main graph of the normalised model.
        calibrator: plugin name, with parameters if any: `percentile:99.99`.
        axis: one range per index along this axis; one for the whole tensor when None.
    """

    tensor: str
    calibrator: str
    axis: int | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    """What was seen of one tensor.

    Attributes:
        wish: what was asked for.
        plugin: the calibrator's plugin, to guard calls with.
        calibrator: the instance that saw everything; it sees no more.
        channels: rows it was shown; 1 per tensor.
        count: values it was shown.
        excluded: attention-mask values that were kept from it.
        low: smallest value it was shown.
        high: largest.
    """

    wish: Wish
    plugin: Plugin[type[Calibrator]]
    calibrator: Calibrator
    channels: int
    count: int
    excluded: int
    low: float
    high: float

    def range(self, scheme: NumberFormat) -> tuple[FloatArray, FloatArray]:
        """The (low, high) to cover: float32, 0-d per tensor, [channels] per channel.

        Raises:
            PluginError: the calibrator raised, or what it returned is no range.
        """
        site = f"tensor '{self.wish.tensor}'"
        with self.plugin.guarded(site):
            low, high = (np.asarray(bound, dtype=np.float32) for bound in self.calibrator.range(scheme))
        if low.shape != (self.channels,) or high.shape != (self.channels,):
            raise self.plugin.error(
                site, f"returned a range of shapes {list(low.shape)}, {list(high.shape)}, expected [{self.channels}]"
            )
        if not (np.isfinite(low).all() and np.isfinite(high).all() and (low <= high).all()):
            bad = int(np.argmin(np.isfinite(low) & np.isfinite(high) & (low <= high)))
            raise self.plugin.error(site, f"returned the range ({low[bad]}, {high[bad]}), expected finite low <= high")
        if self.wish.axis is None:
            return low[0], high[0]
        return low, high

    def merge(self, other: Observation) -> Observation:
        """What both saw together; neither changes."""
        site = f"tensor '{self.wish.tensor}'"
        if other.wish != self.wish or other.channels != self.channels:
            raise PlanError(
                f"{site}: evidence of {other.wish.calibrator} over {other.channels} channels cannot be merged into "
                f"evidence of {self.wish.calibrator} over {self.channels}; calibrate both with the same options"
            )
        with self.plugin.guarded(site):
            together = new_calibrator(self.plugin, self.wish.calibrator)
            together.restore(self.calibrator.state())
            together.merge(other.calibrator)
        return replace(
            self,
            calibrator=together,
            count=self.count + other.count,
            excluded=self.excluded + other.excluded,
            low=min(self.low, other.low),
            high=max(self.high, other.high),
        )


@dataclass(frozen=True, slots=True)
class Evidence:
    """What calibration saw.

    Attributes:
        fingerprint: of the model it belongs to.
        data: where the batches came from, in words.
        batches: how many there were.
        observations: by tensor name, in graph order.
        unobserved: wished for, but nothing is known of it: tensor name -> reason.
    """

    fingerprint: str
    data: str
    batches: int
    observations: Mapping[str, Observation]
    unobserved: Mapping[str, str]

    @property
    def tensors(self) -> tuple[str, ...]:
        """Tensors that `range` answers for."""
        return tuple(self.observations)

    def range(self, tensor: str, scheme: NumberFormat) -> tuple[FloatArray, FloatArray]:
        """The (low, high) that the tensor's calibrator proposes for a number format.

        Args:
            tensor: name in the normalised graph.
            scheme: qmin, qmax and symmetry of the codes that the range will be spread over.
        Returns:
            low, high: float32, 0-d per tensor or [channels]; zero need not lie between them.
        Raises:
            PlanError: the tensor was not observed.
            PluginError: the calibrator failed.
        """
        if tensor not in self.observations:
            reason = self.unobserved.get(tensor, "nobody asked for it when the evidence was collected")
            raise PlanError(f"tensor '{tensor}' has no range: {reason}; keep its readers float or calibrate again")
        return self.observations[tensor].range(scheme)

    def merge(self, other: Evidence) -> Evidence:
        """Evidence over the batches of both.

        Raises:
            DataError: they belong to different models.
            PlanError: a tensor was watched by different calibrators.
        """
        if other.fingerprint != self.fingerprint:
            raise DataError("evidence of two different models cannot be merged; calibrate each on its own")
        observations = dict(self.observations)
        for tensor, theirs in other.observations.items():
            observations[tensor] = observations[tensor].merge(theirs) if tensor in observations else theirs
        unobserved = {**other.unobserved, **self.unobserved}
        return Evidence(
            fingerprint=self.fingerprint,
            data=self.data if self.data == other.data else f"{self.data} and {other.data}",
            batches=self.batches + other.batches,
            observations=MappingProxyType(observations),
            unobserved=MappingProxyType({name: why for name, why in unobserved.items() if name not in observations}),
        )

    def check_model(self, fingerprint: str, model: Path) -> None:
        """Raise a DataError unless this is evidence of that model."""
        if self.fingerprint != fingerprint:
            raise DataError(
                f"the evidence was collected on another model than {model} (sha256 {self.fingerprint[:12]}, expected "
                f"{fingerprint[:12]}); run onnxq calibrate {model} again"
            )

    def save(self, path: Path, *, overwrite: bool = True) -> None:
        """Write everything to an .npz that `load` reads back to the last bit.

        Raises:
            OutputError: it cannot be written; nothing is left then.
        """
        arrays: dict[str, npt.NDArray[Any]] = {}
        for index, seen in enumerate(self.observations.values()):
            for key, array in seen.calibrator.state().items():
                arrays[f"{index}/{key}"] = np.asarray(array)
        content = io.BytesIO()
        np.savez_compressed(content, allow_pickle=False, **{_INDEX: np.array(self._index())}, **arrays)
        write_bytes(path, content.getvalue(), overwrite=overwrite)

    def _index(self) -> str:
        return json.dumps(
            {
                "version": _VERSION,
                "fingerprint": self.fingerprint,
                "data": self.data,
                "batches": self.batches,
                "unobserved": dict(self.unobserved),
                "observations": [
                    {
                        "tensor": seen.wish.tensor,
                        "calibrator": seen.wish.calibrator,
                        "axis": seen.wish.axis,
                        "channels": seen.channels,
                        "count": seen.count,
                        "excluded": seen.excluded,
                        "low": seen.low,
                        "high": seen.high,
                    }
                    for seen in self.observations.values()
                ],
            }
        )

    @staticmethod
    def load(path: Path, registry: Registry) -> Evidence:
        """Read what `save` wrote; calibrators are looked up in the registry.

        Raises:
            DataError: not a file of evidence, damaged, or of a newer version.
            RecipeError: a calibrator is not installed.
        """
        return _reported(path, lambda: _read(path, registry))


def _read(path: Path, registry: Registry) -> Evidence:
    with np.load(path, allow_pickle=False) as archive:
        index = json.loads(str(archive[_INDEX]))
        if index["version"] != _VERSION:
            raise DataError(f"--evidence {path}: has version {index['version']}, this onnxq reads {_VERSION}")
        states: list[dict[str, npt.NDArray[Any]]] = [{} for _ in index["observations"]]
        for name in archive.files:
            number, slash, key = name.partition("/")
            if slash:
                states[int(number)][key] = archive[name]
    observations = {}
    for entry, state in zip(index["observations"], states, strict=True):
        wish = Wish(entry.pop("tensor"), entry.pop("calibrator"), entry.pop("axis"))
        plugin = registry.calibrator(wish.calibrator.partition(":")[0])
        calibrator = new_calibrator(plugin, wish.calibrator)
        with plugin.guarded(f"tensor '{wish.tensor}'"):
            calibrator.restore(state)
        observations[wish.tensor] = Observation(wish, plugin, calibrator, **entry)
    return Evidence(
        index["fingerprint"],
        index["data"],
        index["batches"],
        MappingProxyType(observations),
        MappingProxyType(index["unobserved"]),
    )


def _reported(path: Path, read: Callable[[], Evidence]) -> Evidence:
    """`read`, with everything that a broken file makes numpy and json raise turned into one DataError."""
    try:
        return read()
    except FileNotFoundError:
        raise DataError(f"--evidence {path}: no such file; make it with onnxq calibrate") from None
    except (OSError, EOFError, ValueError, KeyError, TypeError, IndexError, zipfile.BadZipFile, zipfile.error) as error:
        raise DataError(
            f"--evidence {path}: not a file of evidence, or damaged ({type(error).__name__}: {error}); "
            "make it again with onnxq calibrate"
        ) from error
