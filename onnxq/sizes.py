"""Sizes as people write them: `8GB`, `512 MiB`, `1.5g`."""

from __future__ import annotations

import re

from onnxq.errors import RecipeError

__all__ = ["parse_size", "size_text"]

_FACTORS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def parse_size(text: str) -> int:
    """Bytes of a size such as `8GB`.

    Raises:
        RecipeError: not a number with an optional unit.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?\s*", text.lower())
    if match is None or match[2] not in _FACTORS:
        raise RecipeError(f"size '{text}' is not a number with a unit; e.g. 8GB or 512MiB")
    return int(float(match[1]) * _FACTORS[match[2]])


def size_text(count: float) -> str:
    """Bytes as people read them: `512 B`, `1.5 kB`, `8.00 GB`."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"
