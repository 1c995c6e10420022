"""Processor: what this machine's CPU does with products of uint8 and int8."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

__all__ = ["saturates"]

_WIDE = ("avx512_vnni", "avx_vnni", "avx10")
"""Flags of x86 CPUs that add four products in 32 bits at once (VNNI)."""


@cache
def saturates() -> bool:
    """Sums of two u8 x s8 products may overflow: an x86 without VNNI adds them in 16 bits, saturating.

    Other architectures have no such instruction. Where the flags cannot be read (no /proc/cpuinfo), an x86 is taken
    for one without VNNI, since narrower weights are never wrong.
    """
    if platform.machine().lower() not in ("x86_64", "amd64", "i686", "x86"):
        return False
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf8")
    except OSError:
        return True
    return not any(flag in flags for flag in _WIDE)
