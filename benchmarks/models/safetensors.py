"""Reading a .safetensors file with numpy alone.

Layout: a little-endian uint64 N, then N bytes of JSON `{name: {dtype, shape, data_offsets: [begin, end]}}`,
then the raw little-endian tensors, with offsets counted from the end of the JSON.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from .errors import SuiteError

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "u1", "BOOL": "?"}


def read_safetensors(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Map the file into memory and return its tensors, read-only.

    Raises:
        SuiteError: a dtype that numpy has not (BF16), or a size that contradicts the shape.
    """
    raw = np.memmap(path, np.uint8, mode="r")
    start = 8 + int.from_bytes(raw[:8].tobytes(), "little")
    header = json.loads(raw[8:start].tobytes())
    header.pop("__metadata__", None)
    tensors: dict[str, np.ndarray[Any, Any]] = {}
    for name, entry in header.items():
        if entry["dtype"] not in DTYPES:
            known = ", ".join(DTYPES)
            raise SuiteError(f"{path}: tensor {name!r} has dtype {entry['dtype']}, expected one of {known}")
        dtype, (begin, end) = np.dtype(DTYPES[entry["dtype"]]), entry["data_offsets"]
        if end - begin != dtype.itemsize * math.prod(entry["shape"]):
            held, shape = end - begin, entry["shape"]
            raise SuiteError(f"{path}: tensor {name!r} holds {held} bytes, not what shape {shape} takes")
        tensors[name] = raw[start + begin : start + end].view(dtype).reshape(entry["shape"])
    return tensors
