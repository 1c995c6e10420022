"""Convert: the whole way, one stage after the other, from a float model to a verified quantized one."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from onnxq.batches import calibration_batches, feeds_for
from onnxq.bench import Latency, Slower, measure_latency, slower_nodes
from onnxq.budgeting import drafts_of, within_budget
from onnxq.calibration import calibrate
from onnxq.data_free import RANDOM
from onnxq.decide import Decision, Plan, decide, needed_opset
from onnxq.equivalence import normalisation_changes
from onnxq.errors import InstallationError, OutputError, RecipeError, SessionError
from onnxq.evidence import Evidence, Wish
from onnxq.kernels import kernels_found
from onnxq.library import library_path
from onnxq.model import Model, load
from onnxq.moments import MomentSource, moments_needed
from onnxq.normalise import normalise
from onnxq.obstacles import too_large, unmeasurable
from onnxq.output import ModelWriter, write_text
from onnxq.plugin.parameters import check_calibrator
from onnxq.plugin.registry import Registry, load_registry
from onnxq.progress import Progress, Silent
from onnxq.qdq.outline import integer_layout
from onnxq.qdq.ranges import wishes_for
from onnxq.qdq.trained import Trained, lift_trained
from onnxq.recipe import Recipe
from onnxq.report import ConvertReport, as_json
from onnxq.rewrite import Rewritten, rewrite
from onnxq.session import Session, SessionOptions, check_installation, cuda_present
from onnxq.sizes import parse_size
from onnxq.summary import summarise
from onnxq.survey import Survey, survey_model
from onnxq.upcast import needs_upcast, runnable_pair
from onnxq.verification import Verdict, verify_files

__all__ = ["convert", "default_output", "inspect_model"]

_COMPARED_BATCHES = 2
"""Batches on which the normalised graph is compared with the file."""


def default_output(model: Path) -> Path:
    """`model.onnx` -> `model.onnxq.onnx`, beside it."""
    return model.with_name(f"{model.name.removesuffix('.onnx')}.onnxq.onnx")


def convert(
    model: Path,
    output: Path | None = None,
    *,
    recipe: Recipe | None = None,
    data: str | None = None,
    evidence: Path | None = None,
    custom_op_libraries: Sequence[Path] = (),
    report: Path | None = None,
    bench: bool = False,
    max_ram: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ConvertReport:
    """Quantize a model file into a new one, verify it, and say what was gained and lost.

    Args:
        model: the float .onnx file.
        output: where to write; beside the model as `NAME.onnxq.onnx` when None. External data goes beside it.
        recipe: what to do; defaults when None.
        data: batches (see onnxq.data) for calibration, the last fifth for verification; synthetic feeds when None.
        evidence: ranges collected by `onnxq calibrate`, instead of calibrating here.
        custom_op_libraries: libraries that implement the model's custom operators.
        report: a .json file to write the report to.
        bench: measure latency too.
        max_ram: memory that running both models may take, e.g. "8GB"; if float plus packed size exceeds it,
            verification, kernel check and latency are left out, and the report says so (see onnxq.obstacles).
        overwrite: allow replacing an existing output.
        progress: told what is going on.
    Raises:
        OnnxqError: any of its kinds; nothing is left or overwritten then.
    """
    recipe, progress = recipe or Recipe(), progress or Silent()
    ram_limit = None if max_ram is None else parse_size(max_ram)
    output = output if output is not None else default_output(model)
    _check_paths(model, output, report)
    clock = _Clock()
    check_installation()
    registry = load_registry()
    with clock.stage("load"):
        loaded = load(model, custom_op_libraries=custom_op_libraries)
    with ModelWriter(output, overwrite=overwrite) as writer:
        with clock.stage("plan"):
            lifted, trained = lift_trained(loaded)
            normalised = normalise(lifted, opset=needed_opset(recipe))
            survey = survey_model(normalised)
        with clock.stage("calibrate"):
            wishes = _wishes(normalised, survey, recipe, registry, trained)
            unfed = unmeasurable(loaded, data, recipe, limit=ram_limit)
            seen = _evidence(normalised, wishes, recipe, registry, data=data, evidence=evidence, progress=progress)
        with clock.stage("decide"):
            plan = decide(normalised, survey, recipe, registry, seen, trained=trained, data=data not in (None, RANDOM))
        if recipe.has_budget:
            with clock.stage("allot"):
                drafts = drafts_of(normalised, survey, recipe, registry, seen, trained=trained, data=data)
                plan = within_budget(normalised, plan, drafts, recipe, registry, data=data, progress=progress)
        with clock.stage("quantize"):
            rewritten = _rewrite(normalised, plan, registry, writer, recipe=recipe, data=data, progress=progress)
            written = writer.write(rewritten.model.ir)
        heavy = too_large(model, written, ram_limit)
        obstacle = heavy or unfed
        with _under_final_name(written, output):
            with clock.stage("verify"):
                verdict = _verify(loaded, written, data, recipe, progress) if obstacle is None else None
                changes = _changes(loaded, normalised, data, recipe) if obstacle is None and not trained else []
            with clock.stage("kernels"):
                found = _kernels(written, plan, loaded, progress) if heavy is None else ({}, {})
            latency: dict[str, Latency] = {}
            slower: tuple[Slower, ...] = ()
            if bench and obstacle is None:
                with clock.stage("bench"):
                    latency, slower = _bench(loaded, written, data, recipe, plan, progress)
        files = writer.commit()
    result = summarise(
        model,
        files,
        recipe,
        plan=plan,
        rewritten=rewritten,
        verdict=verdict,
        found=found,
        latency=latency,
        slower=slower,
        seconds=clock.seconds,
        notes=[*changes, *([obstacle] if obstacle else [])],
    )
    if report is not None:
        write_text(report, as_json(result))
    return result


def inspect_model(model: Path, *, recipe: Recipe | None = None, custom_op_libraries: Sequence[Path] = ()) -> Plan:
    """What a conversion would do with each weight, without doing it."""
    recipe = recipe or Recipe()
    registry = load_registry()
    lifted, trained = lift_trained(load(model, custom_op_libraries=custom_op_libraries))
    normalised = normalise(lifted, opset=needed_opset(recipe))
    survey = survey_model(normalised)
    plan = decide(normalised, survey, recipe, registry, trained=trained)
    if not recipe.has_budget:
        return plan
    drafts = drafts_of(normalised, survey, recipe, registry, trained=trained)
    return within_budget(normalised, plan, drafts, recipe, registry)


def _check_paths(model: Path, output: Path, report: Path | None) -> None:
    if output.exists() and model.exists() and output.samefile(model):
        raise OutputError(f"{output}: is the input itself; give another name with -o")
    if output.suffix != ".onnx":
        raise OutputError(f"{output}: the output's name must end in .onnx; e.g. -o {output.name}.onnx")
    if report is not None and report.is_dir():
        raise OutputError(f"{report}: is a folder; give the name of a file with --report")
    if report is not None and report.suffix != ".json":
        raise OutputError(f"{report}: reports are written as .json; e.g. --report {report.stem}.json")
    for path in (output, report):
        if path is not None and not path.absolute().parent.is_dir():
            raise OutputError(f"{path}: its folder does not exist; create {path.absolute().parent} first")


@contextmanager
def _under_final_name(written: Path, output: Path) -> Iterator[None]:
    """Errors name the file by the name that the user gave, not by the hidden one it still has."""
    try:
        yield
    except SessionError as error:
        raise SessionError(str(error).replace(str(written), str(output))) from error


class _Clock:
    """Wall time of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 3)


def _wishes(model: Model, survey: Survey, recipe: Recipe, registry: Registry, trained: Trained) -> tuple[Wish, ...]:
    """What has to be observed; every calibrator is tried out before the first inference."""
    for name in (recipe.calibrator, *(rule.calibrator for rule in recipe.override if rule.calibrator)):
        check_calibrator(registry, name)
    return wishes_for(integer_layout(model, survey, recipe, trained=trained), recipe, trained)


def _evidence(
    model: Model,
    wishes: Sequence[Wish],
    recipe: Recipe,
    registry: Registry,
    *,
    data: str | None,
    evidence: Path | None,
    progress: Progress,
) -> Evidence | None:
    """Ranges of the activations that will be codes: read from a file, or observed now; None when there are none."""
    if evidence is not None:
        found = Evidence.load(evidence, registry)
        found.check_model(model.fingerprint, model.path)
        return found
    if not wishes:
        return None
    options = SessionOptions(custom_op_libraries=model.custom_op_libraries)
    batches, count = calibration_batches(model, data, recipe=recipe, options=options)
    progress.stage("calibrating", count)
    return calibrate(
        model,
        wishes,
        batches,
        registry,
        options=options,
        state=recipe.state,
        on_batch=lambda index: progress.step(f"batch {index}"),
    )


def _rewrite(
    model: Model,
    plan: Plan,
    registry: Registry,
    writer: ModelWriter,
    *,
    recipe: Recipe,
    data: str | None,
    progress: Progress,
) -> Rewritten:
    weights = len({decision.site.storage for decision in plan.decisions})

    def on_weight(decision: Decision) -> None:
        progress.step(decision.site.node)

    needs = moments_needed(plan, registry)
    if not needs:
        progress.stage("quantizing", weights)
        return rewrite(model, plan, registry, sink=writer.store, on_weight=on_weight)
    if data is None and (node := next((node for node, need in needs.items() if need != "mean"), None)) is not None:
        method = next(decision.method for decision in plan.decisions if decision.site.node == node)
        raise RecipeError(
            f"'{node}': method {method} weighs errors by real activations; give --data, or take method mse"
        )
    options = SessionOptions(custom_op_libraries=model.custom_op_libraries)
    batches, _ = calibration_batches(model, data, recipe=recipe, options=options)
    progress.stage("quantizing", weights)
    with MomentSource(model, needs, batches, options=options, state=recipe.state) as source:
        return rewrite(model, plan, registry, sink=writer.store, evidence_of=source.evidence, on_weight=on_weight)


def _verify(model: Model, written: Path, data: str | None, recipe: Recipe, progress: Progress) -> Verdict:
    with runnable_pair(model.path, written) as (reference, quantized, note):
        options = SessionOptions(custom_op_libraries=model.custom_op_libraries)
        feeds, count, description = feeds_for(
            load(reference, custom_op_libraries=model.custom_op_libraries),
            data,
            seed=recipe.seed,
            options=options,
            state=recipe.state,
        )
        progress.stage("verifying", count)
        return verify_files(
            reference,
            quantized,
            feeds,
            data=description + note,
            options=options,
            on_batch=lambda index: progress.step(f"batch {index}"),
        )


def _changes(loaded: Model, normalised: Model, data: str | None, recipe: Recipe) -> list[str]:
    """What normalising changed at the outputs; nothing is said of bfloat16 models, which cannot be run here."""
    if needs_upcast(loaded.path):
        return []
    options = SessionOptions(custom_op_libraries=loaded.custom_op_libraries)
    feeds, _, _ = feeds_for(loaded, data, seed=recipe.seed, options=options, state=recipe.state)
    return normalisation_changes(loaded, normalised, list(islice(feeds, _COMPARED_BATCHES)), options)


def _kernels(
    written: Path, plan: Plan, model: Model, progress: Progress
) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Operators found by node name, in stock onnxruntime and with our library; empty where not checked."""
    progress.stage("checking kernels", 2)
    cuda = plan.target == "cuda"
    if not plan.decisions or needs_upcast(model.path) or (cuda and not cuda_present()):
        return {}, {}
    integers = {integer.node for integer in plan.integers}
    sites = [decision.site for decision in plan.decisions if decision.site.node not in integers]
    progress.step("stock onnxruntime")
    options = SessionOptions(custom_op_libraries=model.custom_op_libraries, cuda=cuda)
    stock = kernels_found(written, sites, options, integers=plan.integers)
    progress.step("with onnxq's library")
    if not _has_library():
        return stock, {}
    ours = SessionOptions(custom_op_libraries=model.custom_op_libraries, use_library=True, cuda=cuda)
    return stock, kernels_found(written, sites, ours, integers=plan.integers)


def _bench(
    model: Model, written: Path, data: str | None, recipe: Recipe, plan: Plan, progress: Progress
) -> tuple[dict[str, Latency], tuple[Slower, ...]]:
    progress.stage("measuring latency", 1)
    progress.step("interleaved runs")
    stock = SessionOptions(custom_op_libraries=model.custom_op_libraries)
    feeds, _, _ = feeds_for(model, data, seed=recipe.seed, options=stock, state=recipe.state)
    contestants = {"float": Session(model.path, stock), "quantized, stock onnxruntime": Session(written, stock)}
    if _has_library():
        ours = SessionOptions(custom_op_libraries=model.custom_op_libraries, use_library=True)
        contestants["quantized, onnxq kernels"] = Session(written, ours)
    feed = next(feeds)
    latency = measure_latency(contestants, feed)
    slower = slower_nodes(model.path, written, plan.integers, feed, stock) if plan.integers else ()
    return latency, slower


def _has_library() -> bool:
    try:
        library_path()
    except InstallationError:
        return False
    return True
