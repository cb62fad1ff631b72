"""Values of the columns of models: the release set and the activity of a device.

The release set has the release of each model. The activity has the phase of each model that is not
idle.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from edgefleet.protocol.device import ModelReport, Phase

ANY_MODEL: Final = ""
"""The model in the activity of an agent with one model that has not named it."""

Activity = tuple[tuple[str, Phase], ...]
"""Models and their phases, sorted by model, without idle models."""


@dataclass(frozen=True, slots=True)
class ReleaseSet:
    """Models and the numbers of their releases, sorted by model.

    ``is_known`` is False for the set of a device whose set did not fit into the table.
    """

    releases: tuple[tuple[str, int], ...] = ()
    is_known: bool = True
    numbers: frozenset[int] = field(init=False, compare=False)
    by_model: Mapping[str, int] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        numbers = frozenset(number for _, number in self.releases)
        object.__setattr__(self, "numbers", numbers)
        object.__setattr__(self, "by_model", MappingProxyType(dict(self.releases)))

    def has_other(self, model: str) -> bool:
        """True if the set has a model other than ``model``."""
        return len(self.by_model) > (model in self.by_model)


NO_RELEASES: Final = ReleaseSet()
UNKNOWN_SET: Final = ReleaseSet(is_known=False)


def phase_of(activity: Activity, model: str) -> Phase:
    """The phase of one model."""
    for named, phase in activity:
        if named in (model, ANY_MODEL):
            return phase
    return Phase.IDLE


def with_reports(
    before: Mapping[str, tuple[str | None, Phase]], reports: tuple[ModelReport, ...]
) -> dict[str, tuple[str | None, Phase]]:
    """Model -> (release, phase) after ``reports``, sorted by model."""
    after = dict(before)
    for report in reports:
        after[report.model] = (report.release, report.phase)
    return {model: at for model, at in sorted(after.items()) if at != (None, Phase.IDLE)}
