"""The search on one profile: builds and measures recipes in order, and lets the judge decide.

Every build and every run is an entry of the cache, so a search that was killed continues where it
was. Latency is measured last, of all candidates together.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from edgefleet.base.errors import EdgefleetError
from edgefleet.optimize.building import Built
from edgefleet.optimize.candidates import other_activations, with_static
from edgefleet.optimize.child import ChildLimits
from edgefleet.optimize.in_field import ranked_in_field
from edgefleet.optimize.judge import judge, judge_all, not_measured
from edgefleet.optimize.judgement import Judgement, Refusal
from edgefleet.optimize.measurement import Budget, Latency, Measurement
from edgefleet.optimize.measuring import RunFacts
from edgefleet.optimize.metrics.score import Score
from edgefleet.optimize.outcome import ProfileOutcome, Tried
from edgefleet.optimize.pareto import best, pareto_front
from edgefleet.optimize.profiles import Profile
from edgefleet.optimize.recipe import Recipe, Simplify, StaticInt8
from edgefleet.protocol.field_figures import FieldVariant

Progress = Callable[[str], None]
"""Called with a line for people."""

WorstFirst = Callable[[Path, StaticInt8], Mapping[str, float]]
"""The nodes of a model, the one that suffers most from quantising first.

The values are the ratio of signal to error of the outputs in decibels, if it alone is quantised.
"""

KEPT: Final = (1, 2, 4, 8)  # nodes in float, on the rungs of the ladder
_UNKNOWN: Final = Latency(p50_s=1.0, p10_s=1.0, runs=0)  # until all were measured together
_LOST: Final = frozenset({Refusal.ACCURACY_LOST, Refusal.ACCURACY_UNPROVEN})


class Bench(Protocol):
    """Builds, runs, scores and times candidates. Tests have one without processes."""

    def build(self, recipe: Recipe, limits: ChildLimits) -> Built: ...

    def run(self, built: Built, limits: ChildLimits) -> RunFacts: ...

    def score(self, facts: RunFacts) -> Score: ...

    def latencies(self, candidates: Sequence[Built], seconds: float) -> tuple[Latency, ...]: ...

    def limits(self, seconds: float) -> ChildLimits: ...


@dataclass(frozen=True, slots=True)
class Plan:
    """Limits and recipes of one search. The first recipe is the unchanged model of the runtime."""

    profile: Profile
    recipes: Sequence[Recipe]
    budget: Budget
    end: float  # by ``clock``
    worst_first: WorstFirst | None = None
    latency_s: float = 20.0
    clock: Callable[[], float] = time.monotonic
    field: Sequence[FieldVariant] = ()  # the profile's figures from the fleet


@dataclass(slots=True)
class _Found:
    """The candidates so far."""

    baseline: Measurement | None = None
    runs: list[tuple[Recipe, RunFacts, Score]] = field(default_factory=list)
    failed: list[Tried] = field(default_factory=list)
    skipped: list[Recipe] = field(default_factory=list)
    bases: list[tuple[float, Recipe]] = field(default_factory=list)  # static, accuracy lost
    sensitivity: Mapping[str, float] = field(default_factory=dict)  # decibels, by node


def search(plan: Plan, bench: Bench, progress: Progress) -> ProfileOutcome:
    """Search the recipes of one runtime. Raises the errors of the unchanged model only."""
    found = _Found()
    for recipe in plan.recipes:
        _try(plan, bench, progress, found, recipe)
    for recipe in _ladder(plan, bench, progress, found):
        if not _try(plan, bench, progress, found, recipe):
            break
    return _judged(plan, bench, progress, found)


def _try(plan: Plan, bench: Bench, progress: Progress, found: _Found, recipe: Recipe) -> bool:
    """Build, run and score one candidate. False: the ladder need not go on."""
    recipe = _cleaned(found, recipe)
    left = plan.end - plan.clock()
    if found.baseline is not None and left <= 0:
        found.skipped.append(recipe)
        progress(f"{plan.profile.name}: {recipe.name} is not tried: the time is over")
        return True
    limits = bench.limits(left if found.baseline is not None else float("inf"))
    try:
        facts = bench.run(bench.build(recipe, limits), limits)
        scored = bench.score(facts)
    except EdgefleetError as error:
        if found.baseline is None:
            raise
        found.failed.append(Tried(recipe=recipe, judgement=not_measured(error)))
        progress(f"{plan.profile.name}: {recipe.name} is refused: {error.message}")
        return True
    found.runs.append((recipe, facts, scored))
    made = measurement(recipe, facts, scored, _UNKNOWN)
    if found.baseline is None:
        found.baseline = made
        progress(f"{plan.profile.name}: {_so_far(made, made)}")
        return True
    progress(f"{plan.profile.name}: {_so_far(found.baseline, made)}")
    lost = judge(found.baseline, made, Budget(keep=plan.budget.keep)).refused in _LOST
    if lost and _static(recipe) is not None:
        found.bases.append((made.value, recipe))
    return lost


def _cleaned(found: _Found, recipe: Recipe) -> Recipe:
    """The recipe without Simplify, if the tool failed on this model."""
    failed = any(
        tried.recipe.steps and isinstance(tried.recipe.steps[-1], Simplify)
        for tried in found.failed
    )
    if not failed:
        return recipe
    steps = tuple(step for step in recipe.steps if not isinstance(step, Simplify))
    return Recipe(runtime=recipe.runtime, steps=steps)


def _ladder(plan: Plan, bench: Bench, progress: Progress, found: _Found) -> Iterator[Recipe]:
    """The rungs for the best static variant that lost accuracy. FP16 is in the table.

    Empty if a static variant kept its accuracy, or none was built.
    """
    statics = [recipe for recipe, _, _ in found.runs if _static(recipe) is not None]
    if not found.bases or len(found.bases) < len(statics):
        return
    value, base = max(found.bases, key=lambda one: one[0])
    step = _static(base)
    progress(f"{plan.profile.name}: {base.name} has {value:.4g}: looking for its worst layers")
    if plan.worst_first is not None and step is not None and plan.clock() < plan.end:
        *before, _ = base.steps
        first = Recipe(runtime=base.runtime, steps=tuple(before))
        try:
            model = bench.build(first, bench.limits(plan.end - plan.clock())).path
            found.sensitivity = plan.worst_first(model, step)
        except EdgefleetError as error:
            progress(f"{plan.profile.name}: the layers cannot be ranked: {error.message}")
        names = tuple(found.sensitivity)
        for count in KEPT:
            if count < len(names):
                yield with_static(base, keep_float=tuple(names[:count]))
    yield with_static(base, activations="int16")


def _judged(plan: Plan, bench: Bench, progress: Progress, found: _Found) -> ProfileOutcome:
    built = [facts.built for _, facts, _ in found.runs]
    progress(f"{plan.profile.name}: measuring the latency of {len(built)} candidates together")
    latencies = bench.latencies(built, plan.latency_s)
    measured = [
        measurement(recipe, facts, scored, latency)
        for (recipe, facts, scored), latency in zip(found.runs, latencies, strict=True)
    ]
    baseline, *candidates = measured
    on_bench = judge_all(baseline, candidates, plan.budget)
    judgements = ranked_in_field(baseline, on_bench, plan.field, plan.budget)
    tried = [
        Tried(recipe=one.recipe, judgement=judgement)
        for one, judgement in zip(candidates, judgements, strict=True)
    ]
    chosen = best(judgements)
    good = [one.candidate for one in judgements if one.refused is None and one.candidate]
    return ProfileOutcome(
        profile=plan.profile.name,
        baseline=baseline,
        tried=(*tried, *found.failed),
        skipped=tuple(found.skipped),
        front=tuple(one.recipe for one in pareto_front(good)),
        chosen=chosen,
        text=_verdict(plan, chosen, [*tried, *found.failed], found.skipped),
        by_bench=_by_bench(best(on_bench), chosen),
        sensitivity_db=found.sensitivity,
    )


def _verdict(
    plan: Plan, chosen: Judgement | None, tried: Sequence[Tried], skipped: Sequence[Recipe]
) -> str:
    name = plan.profile.name
    if chosen is not None and chosen.candidate is not None:
        return f"{name}: {chosen.candidate.recipe.name}. {chosen.text}"
    reasons = "; ".join(f"{one.recipe.name}: {one.judgement.text}" for one in tried)
    more = f" {len(skipped)} recipes were not tried: the time was over." if skipped else ""
    return f"No variant qualifies for {name}, because {reasons or 'no recipe fits it'}{more}"


def _by_bench(on_bench: Judgement | None, chosen: Judgement | None) -> Recipe | None:
    """The recipe that the bench alone would choose, if the figures of the fleet changed that."""
    before, after = (one.candidate if one else None for one in (on_bench, chosen))
    if before is None or (after is not None and after.sha256 == before.sha256):
        return None
    return before.recipe


def measurement(recipe: Recipe, facts: RunFacts, scored: Score, latency: Latency) -> Measurement:
    """All figures of one candidate."""
    return Measurement(
        recipe=recipe,
        sha256=facts.built.sha256,
        size_bytes=facts.built.size_bytes,
        compressed_bytes=facts.compressed_bytes,
        delta_bytes=facts.delta_bytes,
        value=scored.value,
        cases=scored.cases,
        latency=latency,
        peak_memory_bytes=facts.peak_memory_bytes,
        batch=facts.batch,
        outputs_digest=facts.outputs_digest,
        resampled=scored.resampled,
    )


def _so_far(baseline: Measurement, one: Measurement) -> str:
    smaller = baseline.size_bytes / max(1, one.size_bytes)
    return (
        f"{one.recipe.name}: {one.size_bytes:,} bytes, {smaller:.2f} times smaller, metric "
        f"{one.value:.4g} (unchanged: {baseline.value:.4g}), {one.peak_memory_bytes >> 20} MiB"
    )


def _static(recipe: Recipe) -> StaticInt8 | None:
    return next((step for step in recipe.steps if isinstance(step, StaticInt8)), None)


def with_other_activations(profile: Profile, recipes: Sequence[Recipe]) -> tuple[Recipe, ...]:
    """The recipes, and the first static one once more with the activations of other hardware."""
    first = next((one for one in recipes if one.runtime == "onnx" and _static(one)), None)
    return (*recipes, other_activations(profile, first)) if first else tuple(recipes)
