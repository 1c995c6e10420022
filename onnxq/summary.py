"""Summary: what all stages of a conversion found, put together into its report."""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

from onnxq.bench import Latency, Slower
from onnxq.cuda_target import ON_CUDA
from onnxq.decide import Plan
from onnxq.kernels import FOLDED
from onnxq.obstacles import size_on_disk
from onnxq.recipe import Recipe
from onnxq.report import ConvertReport, IntegerReport, SiteReport
from onnxq.rewrite import Rewritten
from onnxq.session import check_installation
from onnxq.sizes import parse_size
from onnxq.verification import Verdict

__all__ = ["summarise"]


_TOO_SMALL_TO_SHRINK = 1 << 20
"""In a model below 1 MiB the nodes that quantizing adds may well weigh more than the weights that it shrinks."""


def summarise(
    model: Path,
    files: Sequence[Path],
    recipe: Recipe,
    *,
    plan: Plan,
    rewritten: Rewritten,
    verdict: Verdict | None,
    found: tuple[Mapping[str, str], Mapping[str, str]],
    latency: Mapping[str, Latency],
    slower: Sequence[Slower],
    seconds: Mapping[str, float],
    notes: Sequence[str],
) -> ConvertReport:
    """The report of a conversion.

    Args:
        model: the float model's file.
        files: what was written, the model first.
        recipe: what was asked for.
        plan: what was decided.
        rewritten: what quantizing did to the weights.
        verdict: measured damage; None when it was not measured.
        found: operators by node name, in stock onnxruntime and with onnxq's library; empty where not checked.
        latency: by contestant.
        slower: nodes that integers made slower.
        seconds: of each stage.
        notes: what else the user should know.
    """
    sites = tuple(
        SiteReport(
            decision=decision,
            weight_sqnr_db=rewritten.weight_sqnr[decision.site.node],
            stored_bytes=rewritten.stored_bytes[decision.site.node],
            damage=verdict.layers.get(decision.site.node) if verdict else None,
            found=found[0].get(decision.site.node),
            found_with_library=found[1].get(decision.site.node),
        )
        for decision in rewritten.decisions
    )
    owners = [site for site in sites if site.stored_bytes]
    weights = sum(site.decision.site.elements for site in owners)
    resident = sum(site.decision.resident_bits * site.decision.site.elements for site in sites)
    return ConvertReport(
        model=str(model),
        output=str(files[0]),
        files=tuple(map(str, files)),
        recipe=recipe,
        versions={name: metadata.version(name) for name in ("onnxq", "onnx", "onnx-ir", "numpy")}
        | {"onnxruntime": check_installation()},
        float_bytes=size_on_disk(model),
        output_bytes=sum(path.stat().st_size for path in files),
        quantized_weights=weights,
        file_bits_per_weight=8 * sum(site.stored_bytes for site in owners) / weights if weights else 0.0,
        resident_bits_per_weight=resident / weights if weights else 0.0,
        sites=sites,
        integers=tuple(
            IntegerReport(integer, found[0].get(integer.node), verdict.layers.get(integer.node) if verdict else None)
            for integer in plan.integers
        ),
        floats=plan.floats,
        activations=plan.activations,
        calibration=plan.calibration,
        reduce_range=plan.reduce_range,
        skips=plan.skips,
        warnings=(
            *plan.warnings,
            *rewritten.warnings,
            *_warnings(plan, sites, verdict, found[0]),
            *notes,
            *_growth(size_on_disk(model), files),
            *_excess(recipe, files),
        ),
        verdict=verdict,
        latency=latency,
        slower=tuple(slower),
        seconds=seconds,
        peak_bytes=_peak_bytes(),
    )


def _warnings(plan: Plan, sites: Sequence[SiteReport], verdict: Verdict | None, found: Mapping[str, str]) -> list[str]:
    warnings = []
    for site in sites:
        expected = site.decision.kernel.removesuffix(ON_CUDA)  # which provider runs it, stock onnxruntime does not say
        if site.found is not None and site.found != expected:
            warnings.append(
                f"'{site.decision.site.node}' was expected to run as {expected} in stock onnxruntime, "
                f"but runs as {site.found}"
            )
        on_cpu = plan.target == "cuda" and site.found_with_library and not site.found_with_library.endswith(ON_CUDA)
        if on_cpu:
            warnings.append(f"'{site.decision.site.node}' runs as {site.found_with_library} on the CPU, not on CUDA")
    named = {site.decision.site.node for site in sites}
    for integer in plan.integers:
        seen = found.get(integer.node)
        moves = integer.kernel == integer.op_type
        if seen not in (None, integer.kernel) and integer.node not in named and not (moves and seen == FOLDED):
            warnings.append(
                f"'{integer.node}' was expected to run as {integer.kernel} in stock onnxruntime, but runs as {seen}"
            )
    if not sites:
        warnings.append("nothing was quantized; the reasons are listed under what stayed float")
    if plan.target == "cuda" and not found:
        warnings.append(
            "kernels for CUDA are predicted, not checked: onnxruntime finds no GPU here, the model was run on the CPU"
        )
    if verdict is not None and not verdict.finite:
        warnings.append("an output became NaN or infinite; keep the worst layers float with --skip")
    return warnings


def _growth(float_bytes: int, files: Sequence[Path]) -> list[str]:
    size = sum(path.stat().st_size for path in files)
    if size <= max(float_bytes, _TOO_SMALL_TO_SHRINK):
        return []
    return [f"the output is larger than the input by {size - float_bytes} bytes"]


def _excess(recipe: Recipe, files: Sequence[Path]) -> list[str]:
    size = sum(path.stat().st_size for path in files)
    if recipe.target_size is None or size <= parse_size(recipe.target_size):
        return []
    return [f"the output takes {size} bytes, more than target_size={recipe.target_size}; ask for less"]


def _peak_bytes() -> int:
    """Highest resident size of this process (getrusage counts KiB on Linux, bytes on macOS)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
