"""Optimises a model for profiles: reads the data, searches each profile, writes the release."""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from msgspec import ValidationError, convert
from msgspec.structs import replace

from edgefleet.base.errors import PublisherError
from edgefleet.optimize.array_files import arrays_digest, write_arrays
from edgefleet.optimize.building import Builder, Built
from edgefleet.optimize.cache import Cache, default_folder
from edgefleet.optimize.candidates import recipes_for
from edgefleet.optimize.child import ChildLimits, free_limits
from edgefleet.optimize.conversion.source import with_tflite
from edgefleet.optimize.data_checks import check_alike
from edgefleet.optimize.data_files import Data, DataReader
from edgefleet.optimize.evaluation_data import Arrays, CalibrationData, EvaluationData
from edgefleet.optimize.evidence import whole_report, write_evidence
from edgefleet.optimize.in_field import read_field
from edgefleet.optimize.inputs.conversion import Converter
from edgefleet.optimize.inputs.read_models import ModelReader
from edgefleet.optimize.ladder import worst_first
from edgefleet.optimize.limits import CHILD_TIME_S, LATENCY_S
from edgefleet.optimize.lineage import Making, tool_versions
from edgefleet.optimize.machine import machine_facts
from edgefleet.optimize.measurement import Budget, Latency
from edgefleet.optimize.measuring import Measurer, RunFacts
from edgefleet.optimize.metrics.by_task import evaluate, metric_for
from edgefleet.optimize.metrics.score import Metric, Score
from edgefleet.optimize.new_release import Draft, Runner, Wanted, draft_of, truth_of
from edgefleet.optimize.optimized_release import Chosen, check_free, write_release
from edgefleet.optimize.outcome import Outcome, ProfileOutcome
from edgefleet.optimize.preprocessing import Preprocessing
from edgefleet.optimize.profiles import Profile
from edgefleet.optimize.recipe import Recipe, StaticInt8
from edgefleet.optimize.release_folder import build_release
from edgefleet.optimize.report.page import write_report
from edgefleet.optimize.samples import Samples
from edgefleet.optimize.search import Plan, Progress, WorstFirst, search, with_other_activations
from edgefleet.optimize.source import by_runtime, operators_of
from edgefleet.optimize.source_model import SourceModel, Trainer
from edgefleet.optimize.targets import check_mapped, judges_speed, named_profiles, runtime_of
from edgefleet.protocol.comparisons import MeanIou, MeanPrecision
from edgefleet.protocol.field_figures import FieldVariant

_MIB: Final = 1 << 20
_LATENCY_SHARE: Final = 0.2  # of the time budget, at most


@dataclass(frozen=True, slots=True)
class Request:
    """The wishes of a publisher: the arguments of ``edgefleet.optimize.optimize``."""

    models: Sequence[Path | str | SourceModel]
    profiles: Sequence[str]
    calibration: Data
    evaluate: Data
    wanted: Wanted
    out: Path
    runner: Runner
    budget: Budget = field(default_factory=Budget)
    time_s: float = 600.0
    baseline: Path | None = None
    cache_dir: Path | None = None
    threads: int | None = None  # None: those of the profile
    metric: str | Callable[[Arrays, Arrays], object] = ""
    trainer: Trainer | None = None
    recipes: Sequence[Recipe] = ()
    images: Preprocessing | None = None  # of folders of images
    tracking_uri: str = ""  # of the MLflow server
    converter_python: Path = Path(sys.executable)
    field: Path | None = None  # figures from the fleet, see ``in_field``
    report: Path | None = None  # where report.html is written, too
    students: Sequence[str] = ()  # of distillation, instead of those of the table
    own_profiles: Path | None = None  # a folder or a file of profiles, beside the user's folder


@dataclass(frozen=True, slots=True)
class _Bench:
    """The bench of one profile: builds and measures in child processes."""

    builder: Builder
    measurer: Measurer
    data: EvaluationData
    metric: Metric

    def build(self, recipe: Recipe, limits: ChildLimits) -> Built:
        return self.builder.build(recipe, limits)

    def run(self, built: Built, limits: ChildLimits) -> RunFacts:
        if built.recipe.steps:
            check_mapped(self.measurer.profile, built.path)
        return self.measurer.run(built, limits)

    def shipped(self, recipe: Recipe, limits: ChildLimits) -> Chosen:
        """A candidate with its answers, from the cache."""
        built = self.build(recipe, limits)
        return Chosen(self.measurer.profile, built, self.run(built, limits).outputs)

    def score(self, facts: RunFacts) -> Score:
        return evaluate(self.metric, self.data, facts.outputs)

    def latencies(self, candidates: Sequence[Built], seconds: float) -> tuple[Latency, ...]:
        return self.measurer.latencies(candidates, self.limits(CHILD_TIME_S), seconds=seconds)

    def limits(self, seconds: float) -> ChildLimits:
        return free_limits(min(CHILD_TIME_S, max(1.0, seconds)))


def run(request: Request, progress: Progress = lambda _line: None) -> Outcome:
    """Optimise. ``progress`` gets a line for people after each candidate.

    Raises PublisherError: the errors of ``inspect_model`` for the model, ``calibration_invalid``,
    ``evaluation_invalid``, ``release_file_invalid``; the errors of running the unchanged model.
    """
    check_free(request.out)
    with tempfile.TemporaryDirectory(prefix="edgefleet-optimize-") as name:
        return _run(request, Path(name), progress)


def _run(request: Request, work: Path, progress: Progress) -> Outcome:
    """Optimise. ``work`` is an empty folder."""
    started_at = time.time()
    profiles = named_profiles(request.profiles, request.own_profiles)
    cache = Cache(request.cache_dir or default_folder())
    given = _given(request, cache, work)
    sources, calibration, samples = given.sources, given.calibration, given.samples
    first = next(iter(sources.values()))
    draft = draft_of(first.facts, samples, request.wanted)
    truth = {name.removeprefix("truth."): one for name, one in truth_of(draft, samples).items()}
    data = EvaluationData(draft.task, samples.inputs, truth)
    metric = _metric(draft, request)
    earlier = _earlier(request.baseline)
    in_field = read_field(request.field, request.wanted.model) if request.field else {}
    end = time.monotonic() + request.time_s
    write_arrays(work / "calibration", calibration.inputs)
    write_arrays(work / "evaluation", data.inputs)
    sources = with_tflite(sources, profiles, cache, work / "calibration", progress)
    runtimes = [runtime_of(profile, list(sources)) for profile in profiles]
    builder = Builder(cache, sources, calibration, work / "calibration", request.trainer)
    digest = arrays_digest(data.inputs)
    outcomes: list[ProfileOutcome] = []
    chosen: list[Chosen] = []
    unchanged: Chosen | None = None
    for place, (profile, runtime) in enumerate(zip(profiles, runtimes, strict=True)):
        measurer = Measurer(
            cache, profile, work / "evaluation", digest, _threads(request, profile),
            earlier.get(profile.name),
        )  # fmt: skip
        bench = _Bench(builder, measurer, data, metric)
        left = (end - time.monotonic()) / (len(profiles) - place)
        plan = _plan(
            request, profile, runtime, sources, left_s=left, data=(calibration, data),
            in_field=in_field.get(profile.name, ()),
        )  # fmt: skip
        outcome = search(plan, bench, progress)
        limits = bench.limits(CHILD_TIME_S)
        unchanged = unchanged or bench.shipped(outcome.baseline.recipe, limits)
        if outcome.chosen is not None and outcome.chosen.candidate is not None:
            shipped = bench.shipped(outcome.chosen.candidate.recipe, limits)
            mapped = check_mapped(profile, shipped.built.path)
            outcome = replace(outcome, text=f"{outcome.text} {mapped}".strip(), mapped=mapped)
            chosen.append(shipped)
        outcomes.append(outcome)
        progress(outcome.text)
    folder = _release(request, draft, samples, unchanged, chosen)
    digests = {"calibration": arrays_digest(calibration.inputs), "evaluation": digest}
    making = _making(request, first, digests, given.data_facts, started_at)
    labels, keep = _labels(data), request.budget.keep
    if folder is not None:
        write_evidence(request.out, making, outcomes, metric.name, keep, labels=labels)
    if request.report is not None:
        write_report(request.report, whole_report(making, outcomes, metric.name, keep, labels))
    return Outcome(
        model=request.wanted.model,
        release=request.wanted.release,
        folder=folder,
        profiles=tuple(outcomes),
        labels=labels,
    )


@dataclass(frozen=True, slots=True)
class _Given:
    """The models and the data of the publisher, read and checked."""

    sources: Mapping[str, SourceModel]
    calibration: CalibrationData
    samples: Samples
    data_facts: Mapping[str, Mapping[str, object]]


def _given(request: Request, cache: Cache, work: Path) -> _Given:
    """Read models and data. ``work`` gets what is fetched and prepared."""
    fetched = work / "models"
    fetched.mkdir()
    converter = Converter(cache, request.converter_python)
    reader = ModelReader(fetched, converter, request.tracking_uri)
    sources = by_runtime(reader.read(request.models))
    data = DataReader(next(iter(sources.values())).facts, work, request.images)
    calibration = data.calibration(request.calibration)
    samples = data.evaluation(request.evaluate)
    check_alike(calibration.inputs, samples.inputs)
    return _Given(sources, calibration, samples, data.facts)


def _labels(data: EvaluationData) -> tuple[int, ...]:
    """The class of each case. Empty where cases have no class."""
    found = data.truth.get("label")
    return () if found is None else tuple(int(one) for one in found)


def _making(
    request: Request,
    source: SourceModel,
    digests: Mapping[str, str],
    data_facts: Mapping[str, Mapping[str, object]],
    started_at: float,
) -> Making:
    return Making(
        model=request.wanted.model,
        release=request.wanted.release,
        source=source,
        data=digests,
        data_facts=data_facts,
        tools=tool_versions(),
        machine=machine_facts(),
        started_at=started_at,
        finished_at=time.time(),
    )


def _release(
    request: Request,
    draft: Draft,
    samples: Samples,
    unchanged: Chosen | None,
    chosen: Sequence[Chosen],
) -> str | None:
    if unchanged is None or not chosen:
        return None
    write_release(request.out, draft, samples, unchanged, chosen, runner=request.runner)
    return str(request.out)


def _plan(
    request: Request,
    profile: Profile,
    runtime: str,
    sources: Mapping[str, SourceModel],
    *,
    left_s: float,
    data: tuple[CalibrationData, EvaluationData],
    in_field: Sequence[FieldVariant],
) -> Plan:
    source = sources[runtime]
    recipes: Sequence[Recipe] = tuple(
        recipes_for(
            profile,
            runtime,
            operators_of(source),
            has_trainer=request.trainer is not None,
            students=request.students,
        )
    )
    if request.recipes:
        recipes = (recipes[0], *(one for one in request.recipes if one.runtime == runtime))
    else:
        recipes = with_other_activations(profile, recipes)
    budget = Budget(
        keep=request.budget.keep,
        memory_bytes=request.budget.memory_bytes or profile.memory_limit_mib * _MIB,
        latency_s=request.budget.latency_s,
        size_bytes=request.budget.size_bytes,
        judges_speed=judges_speed(profile, runtime),
    )
    latency_s = min(LATENCY_S, _LATENCY_SHARE * request.time_s)
    return Plan(
        profile=profile,
        recipes=recipes,
        budget=budget,
        end=time.monotonic() + left_s - latency_s,
        worst_first=_worst_first(*data) if runtime == "onnx" else None,
        latency_s=latency_s,
        field=in_field,
    )


def _metric(draft: Draft, request: Request) -> Metric:
    """The metric of the task. Where a detector has its boxes is said by the wishes."""
    kinds = {"detection": MeanPrecision, "segmentation": MeanIou}
    comparison = None
    if (kind := kinds.get(draft.task)) is not None and request.wanted.compare:
        base: dict[str, object] = {"kind": kind.__struct_config__.tag}
        base |= (
            {"boxes": draft.output.name}
            if kind is MeanPrecision
            else {"output": draft.output.name, "class_axis": 1}
        )
        try:
            comparison = convert({**base, **request.wanted.compare}, kind)
        except ValidationError as error:
            raise PublisherError("release_file_invalid", f"{error}.", field="compare") from error
    return metric_for(draft.task, draft.output.name, request.metric, comparison)


def _worst_first(calibration: CalibrationData, evaluation: EvaluationData) -> WorstFirst:
    def ordered(model: Path, step: StaticInt8) -> Mapping[str, float]:
        return worst_first(model, step, calibration, evaluation)

    return ordered


def _threads(request: Request, profile: Profile) -> int:
    """The threads of a run: as wished, else those of the profile that this machine has."""
    return request.threads or min(profile.threads, len(os.sched_getaffinity(0)))


def _earlier(folder: Path | None) -> dict[str, Path]:
    """The artifacts in an earlier release folder, by profile."""
    if folder is None:
        return {}
    built = build_release(folder, created_at=0.0)
    return {one.profile: built.files[one.artifact.sha256] for one in built.manifest.variants}
