"""The outcome of optimising: what was tried on each profile, and what was chosen."""

from collections.abc import Mapping

from msgspec.structs import replace

from edgefleet.optimize.judgement import Judgement
from edgefleet.optimize.measurement import Measurement
from edgefleet.optimize.recipe import Recipe
from edgefleet.protocol.wire import Wire


class Tried(Wire, frozen=True, kw_only=True):
    """One recipe and its judgement."""

    recipe: Recipe
    judgement: Judgement


class ProfileOutcome(Wire, frozen=True, kw_only=True):
    """The search on one profile, in one runtime.

    ``skipped`` were not tried, as the time was over. ``front`` is the Pareto front of those that
    qualify. ``chosen`` is None if none does; ``text`` then says why. ``by_bench`` would be
    chosen without the figures of the fleet; None: the same. ``mapped`` says how many operators of
    the chosen variant an accelerator runs, where that is known. ``sensitivity_db`` is that of the
    ladder by node, the most sensitive first; empty if no layers had to be ranked.
    """

    profile: str
    baseline: Measurement
    tried: tuple[Tried, ...]
    skipped: tuple[Recipe, ...]
    front: tuple[Recipe, ...]
    chosen: Judgement | None
    text: str
    by_bench: Recipe | None = None
    mapped: str = ""
    sensitivity_db: Mapping[str, float] = {}


class Outcome(Wire, frozen=True, kw_only=True):
    """The outcome on all profiles. ``folder`` is the release folder; None: no variant qualifies.

    ``labels`` are the classes of the evaluation cases, where they have one.
    """

    model: str
    release: str
    folder: str | None
    profiles: tuple[ProfileOutcome, ...]
    labels: tuple[int, ...] = ()

    def without_cases(self) -> "Outcome":
        """The outcome without the scores of single cases, which are long."""
        return replace(self, profiles=tuple(map(_without_cases, self.profiles)), labels=())

    @property
    def qualified(self) -> bool:
        """Whether each profile has a variant."""
        return all(one.chosen is not None for one in self.profiles)


def _without_cases(outcome: ProfileOutcome) -> ProfileOutcome:
    return replace(
        outcome,
        baseline=_short(outcome.baseline),
        tried=tuple(replace(one, judgement=_brief(one.judgement)) for one in outcome.tried),
        chosen=None if outcome.chosen is None else _brief(outcome.chosen),
    )


def _brief(judged: Judgement) -> Judgement:
    if judged.candidate is None:
        return judged
    return replace(judged, candidate=_short(judged.candidate))


def _short(one: Measurement) -> Measurement:
    return replace(one, cases=(), resampled=None)
