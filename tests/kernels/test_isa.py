"""All instruction sets give the same bits, through onnxruntime. (test_native.py asks the same without it.)"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

# Products of all widths, both modes, few and many rows; printed as one array.
PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from packed_nodes import matmul_model, random_weight, run
from planes import plane_model
from test_plane_kernels import codebook_weight, plane_weight
results = []
for seed in range(24):
    rng = np.random.default_rng(seed)
    bits, block, m = (2, 4, 8)[seed % 3], 16 << seed % 5, (1, 3, 7, 33)[seed % 4]
    weight = random_weight(rng, int(rng.integers(1, 400)), int(rng.integers(1, 90)), bits=bits, block=block,
                           zero_points=seed % 2 == 0)
    a = rng.standard_normal((m, weight.codes.shape[0])).astype(np.float32)
    for compute in ("int8", "float"):
        results.append(run(matmul_model(weight, compute=compute), sys.argv[2], a))
for weight in (plane_weight(3), plane_weight(5, zero_points=True), plane_weight(6), codebook_weight(4),
               codebook_weight(2), codebook_weight(8, 4)):
    for m in (1, 20):
        a = np.random.default_rng(m).standard_normal((m, weight.rows)).astype(np.float32)
        results.append(run(plane_model(weight), sys.argv[2], a))
np.save(sys.argv[3], np.concatenate([y.ravel() for y in results]))
"""


def products(library, isa, folder) -> np.ndarray | None:
    """None where this machine lacks the path."""
    out = folder / f"{isa}.npy"
    command = [sys.executable, "-c", PROGRAM, str(Path(__file__).parent), library, str(out)]
    done = subprocess.run(command, env=os.environ | {"ONNXQ_ISA": isa}, capture_output=True, text=True)
    if "is not supported by this machine" in done.stderr:
        return None
    assert done.returncode == 0, done.stderr[-2000:]
    return np.load(out)


@pytest.fixture(scope="module")
def oracle(library, tmp_path_factory):
    return products(library, "scalar", tmp_path_factory.mktemp("scalar"))


@pytest.mark.parametrize("isa", ["avx2", "avxvnni", "avx512vnni", "amx", "neon"])
def test_an_instruction_set_gives_the_scalar_bits(library, oracle, isa, tmp_path):
    found = products(library, isa, tmp_path)
    if found is None:
        pytest.skip(f"this machine has no {isa}")
    assert found.tobytes() == oracle.tobytes()
    assert found[::2].tobytes() != oracle[1::2].tobytes()  # teeth: the comparison is not of constants
