"""The content of a report."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgefleet.optimize.judgement import Judgement
from edgefleet.optimize.measurement import Measurement


@dataclass(frozen=True, slots=True)
class ProfileReport:
    """The judgements of one profile. ``chosen`` is the digest of the variant in the release.

    None: no variant qualifies; ``text`` then says why. ``front`` are the digests of the Pareto
    front. ``labels`` are the right classes of the cases, for accuracy by class; empty where cases
    have no class. ``sensitivity`` is the error that quantising a layer alone causes. ``by_bench``:
    the recipe that the bench alone would choose, if the figures of the fleet changed that.
    ``mapped``: how many operators of the chosen variant an accelerator runs. Empty: not known.
    """

    profile: str
    baseline: Measurement
    judgements: tuple[Judgement, ...]
    chosen: str | None = None
    front: tuple[str, ...] = ()
    text: str = ""
    labels: tuple[int, ...] = ()
    class_names: Mapping[int, str] = field(default_factory=dict)
    sensitivity: Mapping[str, float] = field(default_factory=dict)
    keep: float = 0.99
    by_bench: str = ""
    mapped: str = ""

    @property
    def measured(self) -> tuple[tuple[Judgement, Measurement], ...]:
        """The candidates that were built, in the order of the judgements."""
        return tuple((one, one.candidate) for one in self.judgements if one.candidate is not None)


@dataclass(frozen=True, slots=True)
class Report:
    """The report of a release. ``facts`` are lines about data, machine and tools."""

    model: str
    release: str
    metric: str
    profiles: tuple[ProfileReport, ...]
    facts: Mapping[str, str] = field(default_factory=dict)
