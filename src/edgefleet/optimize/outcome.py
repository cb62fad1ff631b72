"""The outcome of optimising: what was tried on each profile, and what was chosen."""

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
    qualify. ``chosen`` is None if none does; ``text`` then says why.
    """

    profile: str
    baseline: Measurement
    tried: tuple[Tried, ...]
    skipped: tuple[Recipe, ...]
    front: tuple[Recipe, ...]
    chosen: Judgement | None
    text: str


class Outcome(Wire, frozen=True, kw_only=True):
    """The outcome on all profiles. ``folder`` is the release folder; None: no variant qualifies."""

    model: str
    release: str
    folder: str | None
    profiles: tuple[ProfileOutcome, ...]

    @property
    def qualified(self) -> bool:
        """Whether each profile has a variant."""
        return all(one.chosen is not None for one in self.profiles)
