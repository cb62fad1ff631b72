"""The decision that a figure led to, to be written beside it."""

from typing import Final

from edgefleet.optimize.judgement import Judgement, Refusal
from edgefleet.optimize.measurement import Measurement
from edgefleet.optimize.report.numbers import size_text, time_text
from edgefleet.optimize.report.report import ProfileReport

SIZE: Final = frozenset({Refusal.OVER_SIZE, Refusal.NOT_BETTER, Refusal.IDENTICAL})
SPEED: Final = frozenset({Refusal.SLOWER, Refusal.OVER_LATENCY, Refusal.NOT_FASTER})
ACCURACY: Final = frozenset({Refusal.ACCURACY_LOST, Refusal.ACCURACY_UNPROVEN})
MEMORY: Final = frozenset({Refusal.OVER_MEMORY})


def decision(judged: Judgement | None, profile: ProfileReport, figures: frozenset[Refusal]) -> str:
    """Such as `` - refused: slower``. Empty if these figures decided nothing on the candidate."""
    if judged is None or judged.candidate is None:
        return ""
    if judged.candidate.sha256 == profile.chosen and judged.refused is None:
        return " \u2013 chosen"
    if judged.refused is not None and judged.refused in figures:
        return f" \u2013 refused: {judged.refused.value}"
    return ""


def steps_text(one: Measurement) -> str:
    """The name of the recipe without its runtime, which the table has."""
    return one.recipe.name.partition(" ")[2]


def judgement_of(profile: ProfileReport) -> Judgement | None:
    """The judgement on the variant that was chosen. None: none was."""
    for judged, one in profile.measured:
        if one.sha256 == profile.chosen and judged.refused is None:
            return judged
    return None


def verdict(profile: ProfileReport) -> str:
    """A sentence: the variant that was chosen and why, or why there is none."""
    judged = judgement_of(profile)
    if judged is None or judged.candidate is None:
        return profile.text or "No variant qualifies."
    one, before = judged.candidate, profile.baseline
    good = sum(other.refused is None for other in profile.judgements)
    why = (
        "as the only one that qualifies"
        if good == 1
        else f"because it has the greatest gain of the {good} that qualify"
    )
    further = f" The bench alone would choose {profile.by_bench}." if profile.by_bench else ""
    if profile.mapped:
        further += f" {profile.mapped}"
    return (
        f"{one.recipe.name} was chosen, {why}: {size_text(one.size_bytes)} instead of "
        f"{size_text(before.size_bytes)}, {time_text(one.latency.p50_s)} instead of "
        f"{time_text(before.latency.p50_s)}. {judged.text}{further}"
    )
