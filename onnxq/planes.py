"""Planes: codes of widths that ONNX has no type for, as bytes (kernels/LAYOUTS.md is the contract).

A plane of b bits (1, 2 or 4) holds codes [K, N] as uint8 [R, N], R = ceil(K * b / 8); byte (r, n) has the codes of rows
r, r + R, r + 2R... from its lowest bits up. Codes that share a byte lie R rows apart, so each field of the bytes is a
run of whole rows, and standard operators unpack a plane with shift, mask and one Concat.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["PLANE_BITS", "pack_plane", "split_codes", "unpack_plane"]

Bytes = npt.NDArray[np.uint8]

PLANE_BITS = {2: (2, 0), 3: (2, 1), 4: (4, 0), 5: (4, 1), 6: (4, 2), 8: (8, 0)}
"""Bits of the low and the high plane by width: code = low | high << bits of the low plane."""


def pack_plane(codes: Bytes, bits: int) -> Bytes:
    """uint8 codes [K, N] below 2^bits -> uint8 [ceil(K * bits / 8), N]; bits is 1, 2, 4 or 8."""
    fields, run = 8 // bits, -(-codes.shape[0] * bits // 8)
    padded = np.zeros((fields, run, codes.shape[1]), np.uint8)
    padded.reshape(fields * run, -1)[: len(codes)] = codes
    plane: Bytes = padded[0]
    for field in range(1, fields):
        plane |= padded[field] << (field * bits)
    return plane


def unpack_plane(plane: Bytes, bits: int, rows: int) -> Bytes:
    """The inverse of pack_plane: uint8 codes [rows, N]."""
    mask = (1 << bits) - 1
    return np.concatenate([plane >> (field * bits) & mask for field in range(8 // bits)])[:rows]


def split_codes(codes: Bytes, bits: int) -> dict[str, Bytes]:
    """The planes of uint8 codes [K, N] below 2^bits: `low`, and `high` where the width has two."""
    low, high = PLANE_BITS[bits]
    planes = {"low": pack_plane(codes & np.uint8((1 << low) - 1), low)}
    if high:
        planes["high"] = pack_plane(codes >> np.uint8(low), high)
    return planes
