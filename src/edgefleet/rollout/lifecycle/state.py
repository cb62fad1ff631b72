"""The durable state of a rollout: one frozen value, stored as JSON."""

import math
from collections.abc import Collection
from typing import Final

import msgspec

from edgefleet.base.texts import counted
from edgefleet.protocol.rollout import (
    Approval,
    Baseline,
    DeviceClass,
    History,
    Judgement,
    LimitPairs,
    Outage,
    RolloutSpec,
    Status,
    TakenBack,
)
from edgefleet.protocol.wire import Wire
from edgefleet.rollout.lifecycle.bake import BakeState
from edgefleet.rollout.lifecycle.site_bets import SiteBets
from edgefleet.rollout.lifecycle.stored_bet import StoredBet

OPEN: Final[Collection[Status]] = frozenset(
    {Status.PLANNED, Status.RUNNING, Status.PAUSED, Status.HALTED, Status.REVERTING}
)
ACTING: Final[frozenset[Status]] = frozenset({Status.RUNNING, Status.PAUSED, Status.REVERTING})
"""At most one rollout with one of these statuses acts on a device; a halted rollout does not."""

EXCLUSIVE: Final[frozenset[Status]] = ACTING | {Status.PLANNED}
"""No rollout is planned for the devices of a rollout with one of these statuses."""

JUDGED: Final[frozenset[Status]] = frozenset({Status.RUNNING, Status.PAUSED})
"""The gate judges the open wave in these statuses. A failed gate also reverts a paused rollout."""

WITHDRAWN: Final[Collection[Status]] = frozenset(
    {Status.REVERTING, Status.REVERTED, Status.REFUSED}
)


BY_HAND: Final = "by_hand"
"""The reason of a wave that an operator passed, and of a revert by an operator."""


class WaveState(Wire, frozen=True, kw_only=True):
    """One wave. The fields after ``is_rest`` are None before the wave opens.

    A device that ``selector`` matches is in the wave if its position is below ``threshold`` and its
    row is below ``rows``. A device that enrols while the wave is open waits for the next wave, so
    that the cut stays exact. ``threshold`` is hexadecimal; 10000000000000000 is above every
    position, and a wave with this threshold also includes devices that enrol later. ``cut`` counts
    the devices of this wave and of all waves before it.
    """

    percent: float | None = None  # of the population, or of the selection
    count: int | None = None
    selector: str = ""
    is_rest: bool = False  # the last wave, for all devices that the plan does not name
    cut: int | None = None
    cut_at: float | None = None  # when it was counted. None in older states: when the wave opened
    threshold: str | None = None
    population: int | None = None
    rows: int | None = None
    planned: int | None = None  # devices that were online when it opened, of ``cut``
    by_handfuls: bool = False  # open for a few devices at a time: its cut grows
    handfuls_at: float | None = None  # when it opened by handfuls, before it opened whole
    opened_at: float | None = None
    closed_at: float | None = None
    judgement: Judgement | None = None  # ``at``: since when verdict and reason are these

    @property
    def counted_at(self) -> float:
        """When ``cut`` was counted. Infinite for a wave that has not opened."""
        at = self.opened_at if self.cut_at is None else self.cut_at
        return math.inf if at is None else at

    @property
    def holdback(self) -> int:
        """Devices that the last wave of everyone leaves out, as control of the bake."""
        everyone = self.percent is not None and self.percent >= 100 and not self.selector
        is_whole = everyone and not self.by_handfuls
        return (self.population or 0) - (self.cut or 0) if is_whole else 0

    @property
    def name(self) -> str:
        """The wave as the plan describes it."""
        if self.is_rest:
            return "the rest"
        much = None if self.percent is None else f"{self.percent:g} %"
        if self.count is not None:
            much = counted(self.count, "device")
        if not self.selector:
            return much or "everyone"
        return f"{much} of {self.selector}" if much else self.selector


class RolloutState(Wire, frozen=True, kw_only=True):
    """One rollout. ``generation`` counts changes of status or wave, ``revision`` all changes."""

    id: str
    spec: RolloutSpec
    salt: int
    previous: str | None
    adds: int = 0  # eligible devices that did not run the model when the rollout was planned
    had_model: int = 0  # eligible devices that ran a release of it
    replaced: dict[str, int] = msgspec.field(default_factory=dict)  # of these, other releases
    beside: dict[str, int] = msgspec.field(default_factory=dict)  # eligible, by other models
    left_out: dict[str, int] = msgspec.field(default_factory=dict)  # eligible, wait for a person
    interface: tuple[str, ...] = ()  # changes that clients of ``previous`` notice
    classes: tuple[DeviceClass, ...] = ()  # tested apart; fixed by the plan
    history: History | None = None  # earlier releases that lift the limit of failures
    baseline: Baseline | None = None  # figures of ``previous`` when the rollout was planned
    status: Status
    reason: str  # a stable code: why the rollout has this status
    text: str
    since: float  # time of the last change of status or wave
    generation: int = 0
    revision: int = 0
    created_at: float
    started_at: float | None = None
    ended_at: float | None = None
    rows_at_end: int | None = None  # devices enrolled when it completed; later ones are newcomers
    planned_by: str = ""  # a user, who cannot approve it. Empty: by the operator token, see 0019
    approvals: tuple[Approval, ...] = ()
    taken_back: tuple[TakenBack, ...] = ()
    outages: tuple[Outage, ...] = ()  # of sites, which the release did not cause
    site_bets: SiteBets = SiteBets()
    wave: int | None = None  # index of the open wave, or of the last one that was open
    waves: tuple[WaveState, ...]
    looks: int = 0  # exact tests at the ends of waves
    looked: int = 0  # finished devices at the last of them
    sizes: tuple[tuple[int, int], ...] = ()  # small fleet: devices that had begun, eligible devices
    bets: tuple[StoredBet, ...] = ()  # a restart of the hub continues them
    limit_pairs: dict[str, tuple[LimitPairs, ...]] = msgspec.field(default_factory=dict)  # likewise
    bets_at: float = 0.0  # when they were stored
    bake: BakeState | None = None  # from the end of the last wave on

    @property
    def failures_allowed(self) -> float:
        """The largest failure rate of a release that is good, by the plan and by ``history``."""
        return self.spec.gate.max_error_rate if self.history is None else self.history.allowed

    @property
    def is_baking(self) -> bool:
        """True if a finding after the last wave can roll the release back by itself."""
        return self.status is Status.COMPLETED and self.bake is not None and self.bake.is_open

    @property
    def is_watched(self) -> bool:
        """True if the release is watched after the last wave: in the bake, and later for alerts."""
        return self.status is Status.COMPLETED and self.bake is not None and self.bake.is_watched

    @property
    def is_taken_back(self) -> bool:
        """True if the release is or was taken back from the fleet, by the gate or by a person."""
        return self.status in WITHDRAWN

    @property
    def has_failed(self) -> bool:
        """True if the gate or the devices took the release back, not a person."""
        return self.is_taken_back and self.reason != BY_HAND

    @property
    def open_wave(self) -> WaveState | None:
        return None if self.wave is None else self.waves[self.wave]
