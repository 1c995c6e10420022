"""Teeth: every planted bug is noticed by a report, a wrong value or a bank conflict, or proved equivalent.

Each bug is built into a module that holds the one kernel it lies in; the others are empty.
"""

import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from emulation import ROOT, EmulationError, Emulator, build, make_product, with_codebook
from planted_bugs import BUGS, Bug

CUDA = ROOT / "kernels" / "cuda"
TABLE = ROOT / "kernels" / "testing" / "MUTATIONS.md"
QUICK = {bug for bug in BUGS if bug.kernel == "decode"}
CODEBOOK = np.random.default_rng(0).standard_normal(16).astype(np.float32)

# (m, k, n, block): ragged everywhere, several blocks a tile, deep blocks, many chunks or stages.
PRODUCTS = {
    "decode": [(5, 328, 37, 32), (8, 4224, 16, 128), (3, 203, 17, 32), (4, 4224, 16, 32)],
    "mid": [(21, 1352, 37, 32), (33, 1160, 50, 128), (16, 1160, 50, 16)],  # 6 and 5 turns of 4 stages
    "wide": [(130, 392, 137, 32), (130, 584, 137, 128)],
    "gather": [(1, 328, 37, 32)],
    "codebook": [(5, 328, 37, 32), (8, 4224, 16, 32)],  # the decode kernel with Codebook<4>
}
KERNELS = {  # name in the module: (launch bound, code)
    "decode_zeros_p16": ("Decode::kThreads", None), "decode_zeros_p64": ("Decode::kThreads", None),
    "decode_zeros_p32": ("Decode::kThreads", "decode<Element::kHalf, Integers<4>, 32>(args);"),
    "decode_zeros_p128": ("Decode::kThreads", "decode<Element::kHalf, Integers<4>, 128>(args);"),
    "mid": ("256", "tile_product<Element::kHalf, Integers<4>, MidShape>(args);"),
    "wide": ("256", "tile_product<Element::kHalf, Integers<4>, WideShape>(args);"),
    "gather": ("kGatherThreads", "gather<Element::kHalf, 4>(args);"),
}  # fmt: skip


def variant_of(kernel: str) -> build.Variant:
    return build.Variant("half", 4, codebook=kernel == "codebook")


def source_with_one_kernel(kernel: str) -> str:
    if kernel == "codebook":
        text = source_with_one_kernel("decode").replace("MatMulArgs", "CodebookArgs").replace("decode_zeros", "decode")
        return text.replace("Integers<4>", "Codebook<4>").replace("half_4", "half_codebook4")
    text = '#include "decode.cuh"\n#include "gather.cuh"\n#include "tile.cuh"\nusing namespace onnxq::cuda;\n'
    for name, (threads, code) in KERNELS.items():
        args = "GatherArgs" if name == "gather" else "MatMulArgs"
        body = code if name.startswith(kernel) and code else ""
        text += (
            f'extern "C" __global__ void __launch_bounds__({threads}) onnxq_half_4_{name}'
            f"(const __grid_constant__ {args} args) {{ {body} }}\n"
        )
    return text


def plant(bug: Bug | None, kernel: str, folder) -> Emulator:
    """A module with the bug, or without one for the control."""
    copy = folder / "cuda"
    shutil.copytree(CUDA, copy)
    (copy / "device" / "packed_ops.cu").write_text(source_with_one_kernel(kernel))
    if bug is not None:
        path = copy / bug.file
        text = path.read_text()
        assert bug.old in text, f"{bug}: nothing to edit in {bug.file}"
        path.write_text(text.replace(bug.old, bug.new, 1))
    return Emulator(build.emulated_kernels(variant_of(kernel), cuda=copy).parent)


def outcome(emulator: Emulator, kernel: str) -> str:
    """ "clean", or how the first mistake showed: a report's kind, "wrong values", "bank conflicts"."""
    conflicts = 0
    for m, k, n, block in PRODUCTS[kernel]:
        product = make_product(m, k, n, block=block, zero_points=True, seed=m)
        if kernel == "codebook":
            product = with_codebook(product, CODEBOOK)
        try:
            if kernel == "gather":
                indices = np.array([0, 5, n - 1, -1, -n, n, 8, 15], np.int64)
                found = emulator.gather(product, indices).astype(np.float64)
                inside = (indices < n) & (indices >= -n)
                exact = product.weight().T[np.where(inside, indices, 0)].astype(np.float16).astype(np.float64)
                wrong = found[inside] != exact[inside]
                if np.any(wrong) or not np.all(np.isnan(found[~inside])):
                    return "wrong values"
                continue
            result = emulator.run(product, kernel="decode" if kernel == "codebook" else kernel, count=True, seed=m)
        except EmulationError as error:
            return str(error).split(": ", 1)[1].split(":")[0]
        error = np.abs(result.astype(np.float64) - product.exact())
        if not np.all(error <= product.bound()):
            return "wrong values"
        if k % 64 == 0 or kernel != "decode":
            conflicts += sum(c.conflicts for c in emulator.counts())
    return "bank conflicts" if conflicts else "clean"


def outcomes(bugs, make_folder):
    """(bug, outcome) of each; modules are built two at a time, and run one by one."""

    def make(bug):
        try:
            return bug, plant(bug, bug.kernel, make_folder())
        except build.BuildError:
            return bug, None  # a static_assert noticed

    build.emulated_driver()
    with ThreadPoolExecutor(2) as pool:
        for bug, emulator in pool.map(make, bugs):
            yield bug, "does not compile" if emulator is None else outcome(emulator, bug.kernel)


@pytest.fixture(scope="module")
def planted(request, tmp_path_factory):
    """Outcome of each selected bug, built two at a time."""
    wanted = [item.callspec.params["bug"] for item in request.session.items if item.name.startswith("test_planted")]

    return {str(bug) + bug.new: seen for bug, seen in outcomes(wanted, lambda: tmp_path_factory.mktemp("bug"))}


@pytest.mark.parametrize(
    "kernel", [pytest.param(k, marks=pytest.mark.quick if k == "decode" else ()) for k in PRODUCTS]
)
def test_the_unharmed_kernel_is_clean(kernel, tmp_path):
    assert outcome(plant(None, kernel, tmp_path), kernel) == "clean"


@pytest.mark.parametrize(
    "bug", [pytest.param(b, id=str(b), marks=pytest.mark.quick if b in QUICK else ()) for b in BUGS]
)
def test_planted_bugs_are_noticed(planted, bug):
    seen = planted[str(bug) + bug.new]
    if bug.equivalent:
        assert seen == "clean", "not equivalent after all"
    else:
        assert seen != "clean"
    assert table_row(bug, seen) in TABLE.read_text(), (
        "MUTATIONS.md is stale: python tests/kernels/cuda/test_cuda_mutations.py"
    )


def table_row(bug: Bug, seen: str) -> str:
    return f"| {bug.kernel} | {bug.name} | {f'equivalent: {bug.equivalent}' if bug.equivalent else seen} |"


def test_at_least_twenty_bugs_are_noticed():
    assert sum(not bug.equivalent for bug in BUGS) >= 20


HEADING = """# Planted bugs

Each row is one edit of a kernel (`tests/kernels/cuda/planted_bugs.py`), built, run on the emulator and compared
with float64 by `tests/kernels/cuda/test_cuda_mutations.py`, which also checks this table. Written by
`python tests/kernels/cuda/test_cuda_mutations.py`.

| kernel | bug | noticed by |
|---|---|---|
"""


def main() -> None:
    import itertools
    import tempfile
    from pathlib import Path

    number = itertools.count()
    with tempfile.TemporaryDirectory() as folder:

        def make_folder() -> Path:
            path = Path(folder) / str(next(number))
            path.mkdir()
            return path

        rows = [table_row(bug, seen) for bug, seen in outcomes(BUGS, make_folder)]
    TABLE.write_text(HEADING + "\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
