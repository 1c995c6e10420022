"""Tables on the terminal: a conversion's report, a plan, a verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from onnxq.damage import Damage
from onnxq.decide import Plan
from onnxq.report import ConvertReport, SiteReport
from onnxq.sizes import size_text
from onnxq.survey import Skip
from onnxq.verification import Verdict

__all__ = ["print_plan", "print_report", "print_verdict"]

_PIPE_WIDTH = 180
_MOST_SLOWER = 8

_MOST_ROWS = 40
"""Longer layer tables show the worst layers only; the JSON report has all."""


def print_report(report: ConvertReport) -> None:
    """What became of each layer, what stayed float and why, sizes, damage, latency."""
    console = _console()
    _print_sites(console, report.sites)
    _print_integers(console, report)
    _print_skips(console, report.skips)
    if report.verdict is not None:
        _print_outputs(console, report.verdict)
    console.print()
    ratio = report.output_bytes / report.float_bytes
    console.print(
        f"[bold]size[/]  {size_text(report.float_bytes)} -> {size_text(report.output_bytes)} ({ratio:.1%})   "
        f"quantized weights: {report.file_bits_per_weight:.2f} bits each in the file, "
        f"{report.resident_bits_per_weight:.2f} resident in stock onnxruntime",
        highlight=False,
        soft_wrap=True,
    )
    if report.sites:
        console.print(f"[bold]kernels[/]  {_kernel_summary(report)}", highlight=False, soft_wrap=True)
    _print_latency(console, report)
    stages = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in report.seconds.items())
    console.print(
        f"[bold]time[/]  {stages}; peak memory {size_text(report.peak_bytes)}", highlight=False, soft_wrap=True
    )
    for warning in report.warnings:
        console.print(f"[yellow]warning[/]  {escape(warning)}", highlight=False, soft_wrap=True)
    console.print(f"[bold]wrote[/]  {escape(', '.join(report.files))}", highlight=False, soft_wrap=True)


def print_plan(model: Path, plan: Plan) -> None:
    """What would be quantized and what not."""
    console = _console()
    table = Table("node", "op", "weight", "becomes", "method", "kernel", box=None, pad_edge=False)
    for decision in plan.decisions:
        site = decision.site
        table.add_row(
            escape(site.node),
            site.op_type,
            f"{site.k} x {site.n}",
            str(decision.scheme),
            decision.method,
            decision.kernel,
        )
    console.print(table)
    _print_skips(console, plan.skips)
    by_op: Counter[str] = Counter()
    for site in {decision.site.storage: decision.site for decision in plan.decisions}.values():
        by_op[site.op_type] += site.float_bytes
    console.print()
    total = sum(by_op.values())
    parts = ", ".join(f"{op} {size_text(size)}" for op, size in by_op.most_common())
    console.print(
        f"{len(plan.decisions)} nodes of {escape(str(model))} can be quantized, {size_text(total)} of weights: {parts}",
        highlight=False,
        soft_wrap=True,
    )
    for warning in plan.warnings:
        console.print(f"[yellow]warning[/]  {escape(warning)}", highlight=False, soft_wrap=True)


def print_verdict(verdict: Verdict) -> None:
    """Damage per layer and at the outputs."""
    console = _console()
    if verdict.layers:
        table = Table("layer", "SQNR dB", "MSE", "PSNR dB", "cosine", box=None, pad_edge=False)
        for node, damage in _worst(verdict.layers):
            table.add_row(
                escape(node), _db(damage.sqnr_db), f"{damage.mse:.3g}", _db(damage.psnr_db), f"{damage.cosine:.5f}"
            )
        console.print(table)
    _print_outputs(console, verdict)


def _console() -> Console:
    """Standard output; a file or pipe gets wide lines, since nobody wraps them there."""
    console = Console()
    return console if console.is_terminal else Console(width=_PIPE_WIDTH)


def _print_sites(console: Console, sites: Sequence[SiteReport]) -> None:
    if not sites:
        return
    shown = list(sites)
    if len(shown) > _MOST_ROWS:
        shown = sorted(shown, key=lambda site: site.damage.sqnr_db if site.damage else float("inf"))[:_MOST_ROWS]
        console.print(f"the {_MOST_ROWS} worst of {len(sites)} layers (--report has all)", style="dim")
    table = Table(
        "node", "op", "weight", "became", "method", "weight dB", "layer dB", "kernel", box=None, pad_edge=False
    )
    for site in shown:
        decision = site.decision
        kernel = site.found or f"{decision.kernel} (predicted)"
        table.add_row(
            escape(decision.site.node),
            decision.site.op_type,
            f"{decision.site.k} x {decision.site.n}",
            str(decision.scheme),
            decision.method,
            _db(site.weight_sqnr_db),
            _db(site.damage.sqnr_db) if site.damage else "-",
            escape(kernel),
        )
    console.print(table)


def _print_integers(console: Console, report: ConvertReport) -> None:
    """Nodes on integer codes, counted by kernel; and the float nodes beside them, by reason."""
    if not report.integers:
        return
    console.print()
    table = Table("on integer codes", "planned", "found", "because", box=None, pad_edge=False)
    kernels = Counter(item.planned.kernel for item in report.integers)
    for kernel, count in kernels.most_common():
        members = [item for item in report.integers if item.planned.kernel == kernel]
        found = Counter(item.found or "not checked" for item in members)
        shown = ", ".join(f"{number}" if name == kernel else f"{number} {name}" for name, number in found.items())
        table.add_row(kernel, str(count), escape(shown), escape(members[0].planned.reason))
    console.print(table)
    reasons = Counter((node.op_type, node.reason) for node in report.floats)
    if reasons:
        console.print()
        table = Table("float beside them", "nodes", "because", box=None, pad_edge=False)
        for (op_type, reason), count in reasons.most_common():
            table.add_row(op_type, str(count), escape(reason))
        console.print(table)
    weights = "7-bit weights (reduced range), " if report.reduce_range else ""
    console.print(
        f"{len(report.activations)} activations as codes, {weights}calibrated on {escape(report.calibration)}",
        style="dim",
        highlight=False,
        soft_wrap=True,
    )


def _print_skips(console: Console, skips: Sequence[Skip]) -> None:
    if not skips:
        return
    groups: dict[tuple[str, str], list[Skip]] = {}
    for skip in skips:
        groups.setdefault((skip.op_type, skip.reason), []).append(skip)
    console.print()
    table = Table("stayed float", "nodes", "bytes", "because", box=None, pad_edge=False)
    for (op_type, reason), members in groups.items():
        name = members[0].node if len(members) == 1 else op_type
        table.add_row(escape(name), str(len(members)), size_text(sum(skip.bytes for skip in members)), escape(reason))
    console.print(table)


def _print_outputs(console: Console, verdict: Verdict) -> None:
    console.print()
    table = Table("output", "SQNR dB", "MSE", "PSNR dB", "cosine", "top-1", "KL", box=None, pad_edge=False)
    for name, damage in verdict.outputs.items():
        table.add_row(
            escape(name),
            _db(damage.sqnr_db),
            f"{damage.mse:.3g}",
            _db(damage.psnr_db),
            f"{damage.cosine:.5f}",
            "-" if damage.top1 is None else f"{damage.top1:.3f}",
            "-" if damage.kl is None else f"{damage.kl:.4f}",
        )
    console.print(table)
    console.print(f"measured on {escape(verdict.data)}", style="dim", highlight=False, soft_wrap=True)


def _print_latency(console: Console, report: ConvertReport) -> None:
    if not report.latency:
        return
    base = report.latency["float"].median_ms
    parts = [f"{name} {row.median_ms:.2f} ms ({base / row.median_ms:.2f}x)" for name, row in report.latency.items()]
    console.print(f"[bold]latency[/]  {'; '.join(parts)}", highlight=False, soft_wrap=True)
    if report.slower:
        worst = report.slower[:_MOST_SLOWER]
        named = [f"{item.node} {item.float_ms:.3f} -> {item.integer_ms:.3f} ms" for item in worst]
        more = f" and {len(report.slower) - _MOST_SLOWER} more" if len(report.slower) > _MOST_SLOWER else ""
        console.print(f"[bold]int8 loses[/]  {escape('; '.join(named))}{more}", highlight=False, soft_wrap=True)


def _kernel_summary(report: ConvertReport) -> str:
    if any(site.found is None for site in report.sites):
        counts = Counter(site.decision.kernel for site in report.sites)
        return "predicted, not checked: " + ", ".join(f"{count} {name}" for name, count in counts.items())
    stock = Counter(site.found for site in report.sites)
    text = "stock onnxruntime: " + ", ".join(f"{count} {name}" for name, count in stock.items())
    ours = Counter(site.found_with_library for site in report.sites if site.found_with_library)
    if ours:
        text += "; with onnxq's library: " + ", ".join(f"{count} {name}" for name, count in ours.items())
    return text


def _worst(layers: Mapping[str, Damage]) -> list[tuple[str, Damage]]:
    if len(layers) <= _MOST_ROWS:
        return list(layers.items())
    return sorted(layers.items(), key=lambda item: item[1].sqnr_db)[:_MOST_ROWS]


def _db(value: float) -> str:
    return "exact" if value == float("inf") else f"{value:.1f}"
