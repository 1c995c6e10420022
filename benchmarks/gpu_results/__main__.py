"""Render results of kernels/gpu_check.sh as Markdown.

python -m benchmarks.gpu_results [RESULT.json ...]     those of this folder, unless others are named
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["render"]

FOLDER = Path(__file__).parent
NONE_YET = (
    "no result has been contributed yet: the CUDA kernels are unverified on hardware (see kernels/cuda/README.md)"
)

_COLUMNS = ("packed_32", "matmulnbits_32", "packed_128", "matmulnbits_128", "fpa_intb_128", "fp16")


def render(result: Mapping[str, Any], source: str) -> str:
    """One result: what passed, and microseconds of each contender by shape and tokens."""
    device = result.get("device")
    if not result.get("measured_on_hardware") or device is None:
        return f"## {source}\n\nholds no measurement on hardware; parts: {_parts(result)}"
    lines = [
        f"## {device['name']} (sm_{device['major']}{device['minor']}, {device['multiprocessors']} multiprocessors)",
        "",
        f"{source}; onnxruntime {result['onnxruntime']}; parts: {_parts(result)}",
        f"the node ran on: {', '.join(result['placement']['providers']) or 'nothing'}; "
        f"CUDA graph {'replays right' if result['graph_capture']['passed'] else 'FAILED'} "
        f"(worst {result['graph_capture']['worst']:.2g})",
        "",
        "Microseconds, medians. 4 bits, fp16; 128: with zero points. floor: as many bytes copied on the card.",
        "",
        f"| K x N | tokens | floor 32 | {' | '.join(_COLUMNS)} | ours / floor | MatMulNBits / ours |",
        "|" + "---|" * (len(_COLUMNS) + 5),
    ]
    lines += [_row(row) for row in result["timings_us"]]
    return "\n".join(lines)


def _parts(result: Mapping[str, Any]) -> str:
    failures = (result.get("correctness") or {}).get("failures", [])
    listed = [f"{name} {state}" for name, state in result.get("status", {}).items()]
    return ", ".join(listed) + (f"; first failure: {failures[0]}" if failures else "")


def _row(row: Mapping[str, float]) -> str:
    ours = row["packed_32"]
    cells = [f"{row['k']} x {row['n']}", str(row["m"]), f"{row['floor_32']:.1f}"]
    cells += [f"{row[name]:.1f}" for name in _COLUMNS]
    cells += [f"{ours / row['floor_32']:.2f}", f"{row['matmulnbits_32'] / ours:.2f}"]
    return f"| {' | '.join(cells)} |"


def main(arguments: Sequence[str]) -> int:
    paths = [Path(name) for name in arguments] or sorted(FOLDER.glob("*.json"))
    if not paths:
        print(NONE_YET)
    print("\n\n".join(render(json.loads(path.read_text(encoding="utf8")), path.name) for path in paths))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
