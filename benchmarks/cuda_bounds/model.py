"""The bound of one product on one card: the slowest of memory, issue slots and tensor cores, plus a launch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cuda_bounds.cards import Card

BUDGETS = Path(__file__).resolve().parents[2] / "kernels" / "cuda" / "budgets.json"

BANDWIDTH_SHARE = 0.85  # of the data sheet's, what streaming kernels usually reach
LAUNCH = 3e-6  # seconds from launch to first byte and back
SCHEDULERS = 4  # warp instructions a multiprocessor issues per clock


@dataclass(frozen=True, slots=True)
class Bound:
    """Seconds. `total` is what no kernel of ours can beat on this card."""

    memory: float
    issue: float
    tensor: float

    @property
    def total(self) -> float:
        return max(self.memory, self.issue, self.tensor) + LAUNCH

    @property
    def by(self) -> str:
        return max(("memory", "issue", "tensor"), key=lambda name: getattr(self, name))


def bytes_moved(m: int, k: int, n: int, *, bits: int, block: int) -> float:
    """Each weight, scale, activation and output once."""
    return k * n * bits / 8 + k / block * n * 2 + m * (k + n) * 2


def bound(card: Card, m: int, k: int, n: int, *, bits: int = 4, block: int = 32) -> Bound:
    """fp16 activations, symmetric weights, the kernel that dispatch takes for m tokens."""
    budgets = json.loads(BUDGETS.read_text())
    memory = bytes_moved(m, k, n, bits=bits, block=block) / (card.bandwidth * BANDWIDTH_SHARE)
    products = k * n / 256 * -(-m // 8)  # m16n8k16 instructions, on tokens in use
    if m <= 8:
        instructions = k * n / budgets[f"half_{bits}_decode_p{min(block, 128)}"]["weights_per_instruction"]
    else:
        # A warp's turn takes 16 columns x 64 rows for 32 tokens (mid), twice as many columns for 64 (wide).
        name, tokens, weights = ("mid", 32, 1024) if m < 64 else ("wide", 64, 2048)
        turns = k * n / weights * -(-m // tokens)
        instructions = turns * budgets[f"half_{bits}_{name}"]["instructions_a_turn"]
    issue = instructions / (card.multiprocessors * SCHEDULERS * card.clock)
    tensor = products * 16 * 8 * 16 / (card.tensor_rate * card.multiprocessors * card.clock)
    return Bound(memory, issue, tensor)
