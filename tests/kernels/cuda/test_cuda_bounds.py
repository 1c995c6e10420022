"""The bounds say what they are, are consistent, and meet issue 5's bar."""

import re
import subprocess
import sys

import pytest
from emulation import ROOT

from benchmarks.cuda_bounds.cards import CARDS, SHAPES
from benchmarks.cuda_bounds.model import bound

pytestmark = pytest.mark.quick
A100 = CARDS[0]


@pytest.mark.parametrize("m", [1, 2, 4, 8, 16])
def test_the_bound_leaves_room_over_matmulnbits(m):
    """4096 x 12288 on an A100: 37.5 .. 125.9 us published; at most 1 / 1.9 of that is bound away."""
    shape = next(s for s in SHAPES if s.n == 12288)
    assert shape.matmulnbits[m] / (bound(A100, m, shape.k, shape.n).total * 1e6) >= 1.9


def test_few_tokens_are_bound_by_memory():
    assert all(bound(A100, m, s.k, s.n).by == "memory" for s in SHAPES for m in (1, 8))


def test_a_bound_grows_with_the_work():
    assert bound(A100, 1, 4096, 4096).total < bound(A100, 512, 4096, 4096).total
    assert bound(A100, 1, 4096, 4096, block=128).total < bound(A100, 1, 4096, 4096, block=32).total
    assert bound(A100, 1, 4096, 4096, bits=2).total < bound(A100, 1, 4096, 4096, bits=8).total


def test_the_table_is_headed_by_what_it_is():
    command = [sys.executable, "-m", "benchmarks.cuda_bounds"]
    text = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert text.startswith("# modelled bounds, unverified on hardware\n")
    assert len(re.findall(r"^\| (?:A100|H100|L4|RTX|B200)", text, re.M)) == 5 * 4 * 7
