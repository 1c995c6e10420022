"""Times the packed kernels against onnxruntime's own.

    python -m benchmarks.kernels                       # the whole table, hours
    python -m benchmarks.kernels --quick               # the bars of the 4-bit kernels, minutes
    python -m benchmarks.kernels --shapes 2048x2048 --rows 1 16 --bits 4 8 nf4
    python -m benchmarks.kernels --load --clock cpu    # what loading costs instead, minutes

The contenders of a line run in turns in one process, so that a slow minute of the machine hurts all alike;
figures are medians of the turns, ratios are onnxruntime's time over ours. `--clock cpu` counts the time that the
process really ran: with one thread that is the same, unless others use the machine too.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort

from .contenders import Problem, Weight
from .loading import measure_loading, show_loading
from .machine import Machine, measure

SHAPES = ["2048x2048", "4096x11008", "11008x4096", "4096x14336", "576x1536", "576x49152"]
LARGE = {(2048, 2048), (4096, 11008), (11008, 4096), (4096, 14336)}
QUICK = {"shapes": SHAPES, "rows": [1, 16, 128], "bits": ["4"], "blocks": [32, 128], "threads": [1]}
TURN_SECONDS = 0.003  # a turn repeats a short product, so that the clock and the call do not matter


@dataclass(frozen=True)
class Line:
    """Seconds of one product, and what they mean. None: onnxruntime has no such kernel."""

    name: str
    k: int
    n: int
    bits: int
    block: int
    rows: int
    threads: int
    ours: float
    onnxruntime: float | None
    float32: float | None
    gb_per_s: float
    gops: float


class Contender:
    """A session with its input and output bound."""

    def __init__(self, model: bytes, a: np.ndarray, args: argparse.Namespace, *, threads: int, ours: bool) -> None:
        self.clock = time.process_time if args.clock == "cpu" else time.perf_counter
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        if ours:
            options.register_custom_ops_library(args.library)
        self.session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.bind(a)

    def bind(self, a: np.ndarray) -> None:
        self.binding = self.session.io_binding()
        self.binding.bind_cpu_input("A", a)
        self.binding.bind_output("Y", "cpu")
        self.repeats = 1
        self.turn()
        self.repeats = max(1, int(TURN_SECONDS / self.turn()))

    def turn(self) -> float:
        start = self.clock()
        for _ in range(self.repeats):
            self.session.run_with_iobinding(self.binding)
        return (self.clock() - start) / self.repeats


def compare(contenders: list[Contender], pairs: int) -> list[float]:
    """Median seconds of each, in turns."""
    turns = [[c.turn() for c in contenders] for _ in range(pairs)]
    return [statistics.median(column) for column in zip(*turns, strict=True)]


def lines(problem: Problem, args: argparse.Namespace, threads: int) -> Iterator[Line]:
    """Measures a problem at every number of rows."""
    weight = Weight(problem)
    a = np.random.default_rng(1).standard_normal((1, problem.k)).astype(np.float32)
    models = {"ours": weight.ours(), "onnxruntime": weight.onnxruntime()}
    if not args.no_float:
        models["float32"] = weight.float32()
    contenders = {
        name: Contender(model, a, args, threads=threads, ours=name == "ours")
        for name, model in models.items()
        if model is not None
    }
    for rows in args.rows:
        a = np.random.default_rng(1).standard_normal((rows, problem.k)).astype(np.float32)
        for contender in contenders.values():
            contender.bind(a)
        times = dict(zip(contenders, compare(list(contenders.values()), args.pairs), strict=True))
        ours = times["ours"]
        yield Line(
            problem.name, problem.k, problem.n, problem.bits, problem.block, rows, threads, ours,
            times.get("onnxruntime"), times.get("float32"),
            problem.packed_bytes / ours / 1e9, 2 * rows * problem.k * problem.n / ours / 1e9,
        )  # fmt: skip


def show(line: Line, machine: Machine | None) -> None:
    def against(other: float | None) -> str:
        return f"{other * 1e3:9.4f} {other / line.ours:6.2f}x" if other else f"{'-':>9} {'-':>7}"

    limits = ""
    if machine:
        bandwidth = line.gb_per_s / line.threads / machine.read_gb_per_s
        limits = f" {bandwidth:6.0%} {line.gops / line.threads / machine.int8_gops:6.0%}"
    print(
        f"{line.name:20} M={line.rows:<4} t={line.threads} {line.ours * 1e3:9.4f}  {against(line.onnxruntime)}  "
        f"{against(line.float32)}  {line.gb_per_s:6.1f} {line.gops:7.1f}{limits}",
        flush=True,
    )


def summarise(results: list[Line]) -> None:
    """Geometric means of the ratios over the large shapes: what the bars are about."""
    groups: dict[tuple[int, int, int, int], list[float]] = {}
    for line in results:
        if line.onnxruntime and (line.k, line.n) in LARGE:
            groups.setdefault((line.bits, line.block, line.rows, line.threads), []).append(line.onnxruntime / line.ours)
    print("\nonnxruntime's time over ours, geometric mean over the large shapes")
    for (bits, block, rows, threads), ratios in sorted(groups.items()):
        mean = math.exp(statistics.fmean(map(math.log, ratios)))
        print(f"  {bits or 'nf4'}-bit block {block:<4} M={rows:<4} t={threads}  {mean:5.2f}x  ({len(ratios)} shapes)")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="4 bits, one thread, M of 1, 16 and 128")
    parser.add_argument("--load", action="store_true", help="time the repack at loading, in s per GB, not products")
    parser.add_argument("--shapes", nargs="+", metavar="KxN", default=SHAPES)
    parser.add_argument("--rows", nargs="+", type=int, default=[1, 4, 16, 64, 128, 512])
    parser.add_argument("--bits", nargs="+", default=["2", "3", "4", "8"], help="2 3 4 5 6 8 nf4")
    parser.add_argument("--blocks", nargs="+", type=int, default=[32, 128])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--pairs", type=int, default=30, help="turns of each contender")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--no-float", action="store_true", help="leave the float32 MatMul out")
    parser.add_argument("--library", help="another libonnxq_ops than the installed one")
    parser.add_argument("--json", type=Path, help="also write the lines there")
    args = parser.parse_args()
    for name, value in QUICK.items() if args.quick else ():
        setattr(args, name, value)
    if args.load:
        args.threads = [1]
    if args.clock == "cpu" and args.threads != [1]:
        parser.error("--clock cpu adds up the threads of a product; use it with --threads 1")
    if args.library is None:
        import onnxq

        args.library = str(onnxq.library_path())
    return args


def problems(args: argparse.Namespace) -> Iterator[Problem]:
    for shape in args.shapes:
        k, n = map(int, shape.split("x"))
        for bits in args.bits:
            for block in args.blocks:
                yield Problem(k, n, 0 if bits == "nf4" else int(bits), block)


def load(args: argparse.Namespace) -> None:
    loadings = []
    for problem in problems(args):
        loadings.append(measure_loading(problem, args))
        show_loading(loadings[-1])
    if args.json:
        args.json.write_text(json.dumps([asdict(loading) for loading in loadings], indent=1))


def main() -> None:
    args = parse()
    if args.load:
        load(args)
        return
    machine = measure()
    if machine:
        print(f"one thread of this machine: reads {machine.read_gb_per_s:.1f} GB/s, int8 {machine.int8_gops:.0f} GOPS")
    print(f"{'':20} {'':10} {'ours ms':>10}  {'onnxruntime':>17}  {'float32':>17}    GB/s    GOPS  of GB/s of GOPS")
    results = []
    for problem in problems(args):
        for threads in args.threads:
            for line in lines(problem, args, threads):
                show(line, machine)
                results.append(line)
    summarise(results)
    if args.json:
        machine_facts = asdict(machine) if machine else None
        args.json.write_text(json.dumps({"machine": machine_facts, "lines": [asdict(x) for x in results]}, indent=1))


if __name__ == "__main__":
    main()
