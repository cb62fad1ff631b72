"""Ranks candidates again by latency and memory that the fleet measured for the same recipes.

Pure but for ``read_field``. The figures are those of releases before, from ``edgefleet model
field``. The recipe with the most requests is the anchor: its speed is that of the bench, and the
others get the ratio that the fleet saw. Where field and bench differ by less than a bucket of the
fleet's histograms shows, the bench stays. A refusal of the bench stays, too.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from msgspec import ValidationError, convert
from msgspec.structs import replace

from edgefleet.base.errors import PublisherError
from edgefleet.base.texts import counted
from edgefleet.optimize.judgement import FieldGain, Judgement, Refusal
from edgefleet.optimize.measurement import Budget, Measurement
from edgefleet.optimize.recipe import Recipe
from edgefleet.protocol.field_figures import CLEARLY, SAME_SOURCE, FieldVariant, ModelField
from edgefleet.protocol.wire import decode

_MIB: Final = 1 << 20

Facts = Mapping[Recipe, FieldVariant]
"""The newest figures of a recipe in one hardware class."""


def read_field(path: Path, model: str) -> dict[str, tuple[FieldVariant, ...]]:
    """The variants by profile, from the answer of ``edgefleet model field --json``.

    Raises PublisherError ``release_file_invalid`` for another file, or figures of another model.
    """
    found = decode(path.read_bytes(), ModelField, code="release_file_invalid")
    if found.model != model:
        raise PublisherError(
            "release_file_invalid",
            f"{path} has figures of the model {found.model}, not of {model}.",
            field="field",
            hint=f"Write it with `edgefleet model field {model} --json`.",
        )
    return {one.profile: one.variants for one in found.profiles}


def ranked_in_field(
    baseline: Measurement,
    judgements: Sequence[Judgement],
    variants: Sequence[FieldVariant],
    budget: Budget,
) -> tuple[Judgement, ...]:
    """The judgements with what the fleet measured. ``variants`` are of the newest release first."""
    facts = _facts(baseline, variants)
    if not facts:
        return tuple(judgements)
    anchor = _anchor(judgements, facts)
    return tuple(_with_field(one, facts, anchor, budget) for one in judgements)


def _facts(baseline: Measurement, variants: Sequence[FieldVariant]) -> Facts:
    """Those of recipes on a model of the size of ``baseline``: it is taken for the same one."""
    found: dict[Recipe, FieldVariant] = {}
    for one in variants:
        if one.bench is None:
            continue
        sizes = sorted((one.bench.source_bytes, baseline.size_bytes))
        if sizes[1] > SAME_SOURCE * sizes[0]:
            continue
        try:
            recipe = convert(one.bench.recipe, Recipe)
        except ValidationError:  # of another version
            continue
        known = found.get(recipe)
        if known is None or (not known.is_enough and one.is_enough):
            found[recipe] = one
    return found


def _anchor(judgements: Sequence[Judgement], facts: Facts) -> Judgement | None:
    """The judged recipe with the most requests in the field. None: none has enough."""
    known = [
        (facts[one.candidate.recipe].requests, -place, one)
        for place, one in enumerate(judgements)
        if one.candidate is not None
        and one.candidate.recipe in facts
        and facts[one.candidate.recipe].is_enough
    ]
    return max(known, key=lambda one: one[:2])[2] if known else None


def _with_field(
    one: Judgement, facts: Facts, anchor: Judgement | None, budget: Budget
) -> Judgement:
    fact = facts.get(one.candidate.recipe) if one.candidate else None
    if fact is None:
        return one
    allowed = budget.memory_bytes
    if one.refused is None and allowed is not None and fact.memory_mib * _MIB > allowed:
        return replace(
            one,
            refused=Refusal.OVER_MEMORY,
            text=(
                f"In the field release {fact.release} took {fact.memory_mib} MiB of memory with "
                f"this recipe; {allowed / _MIB:.1f} MiB are allowed."
            ),
        )
    if anchor is None or anchor.candidate is None or one.refused is not None:
        return one
    reference = facts[anchor.candidate.recipe]
    if not fact.is_enough or not fact.latency_us_p50 or not reference.latency_us_p50:
        return one
    faster = anchor.faster * reference.latency_us_p50 / fact.latency_us_p50
    differs = max(faster, one.faster) >= CLEARLY * min(faster, one.faster)
    gain = FieldGain(
        release=fact.release,
        requests=fact.requests,
        devices=fact.devices,
        latency_us_p50=fact.latency_us_p50,
        faster=faster if differs else one.faster,
    )
    seen = (
        f"{faster:.2f} times the speed of the baseline, if {anchor.candidate.recipe.name} has the "
        "bench's speed"
        if differs
        else "as the bench says"
    )
    reported = f"{fact.requests:,} requests on at least {counted(fact.devices, 'device')}"
    text = (
        f"{one.text} In the field release {fact.release} took {fact.latency_us_p50 / 1e3:.3g} ms "
        f"(p50 of {reported}): {seen}."
    )
    return replace(one, in_field=gain, text=text)
