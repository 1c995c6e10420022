"""A calibrator from outside: ranges that end at powers of two, for hardware that scales by shifting.

    pip install samples/third_party_calibrator
    onnxq calibrate model.onnx --format qdq --calibrator power-of-two:spare=1 --data batches/ -o evidence.npz

This file and the entry point in pyproject.toml are all there is. The contract is onnxq.plugin.contracts.Calibrator.
"""

import numpy as np

from onnxq.plugin.hookspecs import hookimpl


class PowerOfTwo:
    """Covers -2^n .. 2^n, the smallest that holds every value, or half as much for each of `spare` bits given up."""

    name = "power-of-two"

    def __init__(self, spare: int = 0) -> None:
        if not isinstance(spare, int) or not 0 <= spare <= 4:
            raise ValueError(f"spare={spare} is not a whole number from 0 to 4")
        self._spare = spare
        self._largest = np.zeros(1, np.float32)  # [channels], or the one 0 that broadcasts to them

    def update(self, rows):
        """See float32 [channels, values]."""
        if rows.shape[1]:
            self._largest = np.maximum(self._largest, np.abs(rows).max(axis=1))

    def merge(self, other):
        """Maxima of maxima: any order gives the same bits."""
        self._largest = np.maximum(self._largest, other._largest)

    def range(self, scheme):
        """Low and high, [channels]."""
        _, exponent = np.frexp(self._largest)  # largest < 2^exponent
        high = np.where(self._largest > 0, 2.0 ** (exponent - self._spare), 0.0)
        return -high, high

    def state(self):
        return {"largest": self._largest}

    def restore(self, state):
        self._largest = state["largest"]


@hookimpl
def onnxq_calibrators():
    return [PowerOfTwo]
