"""Everything durable of a rollout, as one frozen value that a store keeps as JSON."""

from collections.abc import Collection
from typing import Final

from edgefleet.protocol.rollout import Approval, Judgement, RolloutSpec, Status
from edgefleet.protocol.wire import Wire

OPEN: Final[Collection[Status]] = frozenset(
    {Status.PLANNED, Status.RUNNING, Status.PAUSED, Status.HALTED, Status.REVERTING}
)
ACTING: Final[frozenset[Status]] = frozenset({Status.RUNNING, Status.PAUSED, Status.REVERTING})
"""No second rollout acts on a common device while one of these does; a halted one lets go."""

EXCLUSIVE: Final[frozenset[Status]] = ACTING | {Status.PLANNED}
"""No second rollout is planned for a common device while one of these holds it."""

JUDGED: Final[frozenset[Status]] = frozenset({Status.RUNNING, Status.PAUSED})
"""The gate judges the open wave of one that stands so; a fail acts on a paused one, too."""

WITHDRAWN: Final[Collection[Status]] = frozenset(
    {Status.REVERTING, Status.REVERTED, Status.REFUSED}
)


class WaveState(Wire, frozen=True, kw_only=True):
    """One wave. What is None is not known before it opens, but for the plan's own words.

    A device that ``selector`` matches is in the wave when its position lies below ``threshold``
    (hexadecimal, up to 10000000000000000, which is everyone) and its row below ``rows``: who enrols
    while a wave is open waits for the next one, so that the cut stays exact. A wave of everyone, or
    of a whole selection, takes newcomers. ``cut`` counts this wave with all before it.
    """

    percent: float | None = None  # of the population, or of the selection
    count: int | None = None
    selector: str = ""
    is_rest: bool = False  # the plan named nobody else: this is who is left
    cut: int | None = None
    threshold: str | None = None
    population: int | None = None
    rows: int | None = None
    opened_at: float | None = None
    closed_at: float | None = None
    judgement: Judgement | None = None  # ``at`` is since when verdict and reason stand

    @property
    def name(self) -> str:
        """The wave in the plan's words."""
        if self.is_rest:
            return "the rest"
        much = None if self.percent is None else f"{self.percent:g} %"
        if self.count is not None:
            much = f"{self.count} device" if self.count == 1 else f"{self.count} devices"
        if not self.selector:
            return much or "everyone"
        return f"{much} of {self.selector}" if much else self.selector


class RolloutState(Wire, frozen=True, kw_only=True):
    """One rollout. ``generation`` grows with status and wave, ``revision`` with every change."""

    id: str
    spec: RolloutSpec
    salt: int
    previous: str | None
    status: Status
    reason: str  # a stable code: why it stands there
    text: str
    since: float  # when it came to stand there
    generation: int = 0
    revision: int = 0
    created_at: float
    started_at: float | None = None
    ended_at: float | None = None
    rows_at_end: int | None = None  # devices enrolled when it completed; later ones are newcomers
    approvals: tuple[Approval, ...] = ()
    wave: int | None = None  # index of the open wave, or of the last one that was open
    waves: tuple[WaveState, ...]

    @property
    def open_wave(self) -> WaveState | None:
        return None if self.wave is None else self.waves[self.wave]
