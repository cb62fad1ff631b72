"""One rollout in memory: its durable state, and what is rebuilt around it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from edgefleet.protocol.device import Offer, OutcomeKind, Switch
from edgefleet.protocol.release import ReleaseManifest
from edgefleet.protocol.rollout import Status, TakenBack
from edgefleet.rollout.constraints import exposure
from edgefleet.rollout.constraints.download_candidates import Candidates
from edgefleet.rollout.constraints.overdue import Overdue
from edgefleet.rollout.constraints.reservations import Reservations
from edgefleet.rollout.evidence.activations import Course
from edgefleet.rollout.evidence.cohorts import Cohorts
from edgefleet.rollout.evidence.detector import Grid
from edgefleet.rollout.evidence.late import Late
from edgefleet.rollout.evidence.ledger import AT_FAULT, EXCLUDED, DeviceStanding, Ledger
from edgefleet.rollout.evidence.ledger_page import LedgerPage
from edgefleet.rollout.evidence.set_aside import SetAside
from edgefleet.rollout.evidence.site_watch import SiteWatch
from edgefleet.rollout.evidence.taken_parts import TakenParts
from edgefleet.rollout.evidence.tally import Tally
from edgefleet.rollout.evidence.windows import OpenWindow
from edgefleet.rollout.fleet.columns import Mask, Rows
from edgefleet.rollout.fleet.fleet import Fleet
from edgefleet.rollout.fleet.scope import Parts, Scope, reach
from edgefleet.rollout.lifecycle.state import WITHDRAWN, RolloutState
from edgefleet.rollout.strata_of_plan import watched

_EXACT = frozenset({Status.RUNNING, Status.PAUSED, Status.HALTED})
"""In these statuses the wave is exactly the devices that were enrolled when the wave opened."""

# Bound once, as reports ask for them: Python 3.11 takes 0.2 us to find a member in its class.
_NONE: Final = DeviceStanding.NONE
_TRIAL: Final = DeviceStanding.TRIAL
_HEALTHY: Final = DeviceStanding.HEALTHY
_RUNNING: Final = Status.RUNNING
_COMPLETED: Final = Status.COMPLETED


@dataclass(frozen=True, slots=True)
class PublishedRelease:
    """A release that can be offered."""

    manifest: ReleaseManifest
    manifest_sha256: str
    number: int  # in the fleet's columns
    memory_mib: Mapping[str, int]  # the memory limit of each variant, by profile


class Position(NamedTuple):
    """A device in one rollout, read once per event.

    Eligibility and wave are not read for a device in trial or confirmed: they are kept.
    """

    standing: DeviceStanding
    is_eligible: bool
    wave: int | None  # the first open or past wave that contains the device; None if none does
    has_place: bool  # a place is reserved; the start is not recorded yet


def fleet_size(state: RolloutState) -> int:
    """The eligible devices when the first wave opened. 0 before."""
    return state.waves[0].population or 0


def course_of(state: RolloutState) -> Course:
    """The inputs of the order of starts: the plan, the fleet at the begin, and the waves."""
    gate, spec, devices = state.spec.gate, state.spec.exposure, fleet_size(state)
    times = (at for wave in state.waves for at in (wave.handfuls_at, wave.opened_at))
    return Course(
        grid=Grid(spec.first, exposure.ceiling(spec, devices), devices),
        since=state.created_at,
        pause_s=gate.confirm_after_s + gate.silence_s,
        opened=tuple(at for at in times if at is not None),
    )


@dataclass(slots=True)
class ActiveRollout:
    """One rollout. Each commit replaces ``state``; the other fields live as long as the engine."""

    state: RolloutState
    release: PublishedRelease
    scope: Scope
    ledger: Ledger
    reservations: Reservations
    cohorts: Cohorts = field(default_factory=Cohorts)
    candidates: Candidates = field(default_factory=Candidates)
    overdue: Overdue = field(default_factory=Overdue)
    taken: TakenParts[TakenBack] = field(init=False)
    set_aside: SetAside = field(init=False)
    sites: SiteWatch = field(init=False)
    tally: Tally = field(init=False)
    late: Late = field(init=False)
    dark: Rows = field(default_factory=lambda: np.zeros(0, np.int64))  # in trial, silent by now
    window: OpenWindow | None = None  # of a watched rollout, from its first evaluation on

    parts: Parts = ()  # one for each wave that is or was open
    reach: Parts = ()  # the union of ``parts``
    _holdback_from: int | None = field(init=False, default=None)  # positions held back in the bake
    _has_alert: bool = field(init=False, default=False)  # an alert: no further device begins
    _sampled_below: int | None = field(init=False, default=None)
    _gone: list[tuple[float, int]] = field(init=False)  # removed devices: when, and first wave
    _enrolled: int = field(init=False)  # rows in the fleet when the open wave opened
    offer: Offer = field(init=False)  # the answer to a device that should run the release
    switch: Switch = field(init=False)  # as the scores of the other models on a device name it

    def __post_init__(self) -> None:
        self.offer = Offer(
            rollout=self.state.id,
            action="install",
            model=self.release.manifest.model,
            release=self.release.manifest.release,
            manifest_sha256=self.release.manifest_sha256,
            confirm_after_s=self.state.spec.gate.confirm_after_s,
            max_cpu_increase=self.state.spec.gate.max_cpu_increase,
            max_memory_growth_mib_h=self.state.spec.gate.max_memory_growth_mib_h,
            shadow=self.state.spec.shadow.offered(),
        )
        self._gone = []
        self.taken = TakenParts((), self.ledger, self.scope.label_values)
        self.tally = Tally(
            self.state.classes,
            self.state.adds + self.state.had_model + sum(self.state.left_out.values()),
            self.ledger,
            self.scope.label_values,
            lambda: self.reservations.reserved_rows,
        )
        self.reservations.on_change = self.tally.reserve
        self.set_aside = SetAside(self.ledger, self.scope.label_values)
        self.late = Late(self.ledger)
        self.sites = SiteWatch(self.ledger, watched(self.state.spec))
        self.switch = Switch(model=self.offer.model, release=self.offer.release)
        self.become(self.state)

    def become(self, state: RolloutState) -> None:
        """Replace the state, and rebuild the parts and the reach from it."""
        self.state = state
        self.ledger.activations.arrange(course_of(state))
        if state.taken_back != self.taken.parts:
            self.taken = TakenParts(state.taken_back, self.ledger, self.scope.label_values)
        self.tally.arrange(self.taken)
        self.set_aside.arrange(self.taken, state.outages)
        self.late.arrange(state.failures_allowed, self.set_aside.parts)
        wave = state.open_wave
        self._enrolled = (wave.rows or 0) if wave is not None else 0
        opened = () if state.wave is None else state.waves[: state.wave + 1]
        self.parts = tuple(self.scope.part(wave) for wave in opened)
        self.reach = reach(self.parts)
        bake = state.bake if state.is_watched else None
        self._has_alert = bake is not None and bake.alert is not None
        held = bake.holdback_from if bake is not None and bake.is_open else None
        self._holdback_from = None if held is None else int(held, 16)
        sampled = None if bake is None else bake.sampled_below
        self._sampled_below = None if sampled is None else int(sampled, 16)
        if bake is None:
            self.window = None

    def load_page(self, page: LedgerPage, packed: bytes) -> None:
        """Replace the empty ledger of a finished rollout by its page. Raises ValueError."""
        self.ledger.load(page, packed)
        self.tally.recount()

    def seal(self, packed: bytes) -> None:
        """Keep a finished rollout in few bytes. ``packed`` is the page of its ledger."""
        self.ledger.seal(packed)
        self.scope.forget_rows()
        self.reservations.forget_downloads()

    @property
    def devices(self) -> int:
        """The size of the fleet when the rollout began. 0 before."""
        return fleet_size(self.state)

    @property
    def holds_late(self) -> bool:
        """True if no more devices may start: they fail, and the gate does not judge them."""
        if self.state.status is not _COMPLETED:
            return False
        self.late.update(self.late.silent)
        return self.late.is_sure(self.state.spec.gate)

    def excludes(self, row: int, other: "ActiveRollout") -> bool:
        """True if ``other``, of the same release, does not give it to the device, because of this.

        A plan that gives the release a second chance forgives all that older rollouts know of it.
        A revert by a person excludes no device. A rollout's own reports always exclude.
        """
        if self._is_forgiven_by(other):
            return False
        excluded = self.ledger.standing(row) in self._excluded
        if excluded and other is not self and self.set_aside.is_excused(row):
            excluded = False
        return excluded or self.takes_back_part(row)

    def all_excluded(self, rows: Rows, other: "ActiveRollout") -> Mask:
        """``excludes`` for each of ``rows``, which must ascend."""
        out: Mask = np.zeros(len(rows), np.bool_)
        if self._is_forgiven_by(other):
            return out
        if self.ledger.has_any(self._excluded):
            out |= self.ledger.have(rows, self._excluded)
            if other is not self:
                out &= ~self.set_aside.excused(rows)
        if self.taken:
            out |= self.all_taken_back(rows)
        return out

    def _is_forgiven_by(self, other: "ActiveRollout") -> bool:
        mine, its = self.state, other.state
        return bool(its.spec.again) and (mine.created_at, mine.id) < (its.created_at, its.id)

    @property
    def _excluded(self) -> frozenset[DeviceStanding]:
        state = self.state
        return AT_FAULT if state.is_taken_back and not state.has_failed else EXCLUDED

    @property
    def in_trial(self) -> int:
        """Devices that occupy a place: in trial (silent devices too), or with a reserved start.

        A device of a part that was taken back occupies none.
        """
        return self.tally.count(_TRIAL) + self.reservations.reserved

    def forget(self, row: int, at: float) -> DeviceStanding:
        """Drop all that is known of a device, removed at ``at``. Returns its standing before.

        To be called before its labels change. Figures that are summed over devices keep its part.
        """
        before = self.ledger.forget(row)
        if self.scope.eligible(row):
            self._gone.append((at, int(self.waves_of(np.array([row]))[0])))
        if before is not _NONE:
            self.tally.move(row, before, _NONE)
        self.reservations.forget(row)
        self.dark = self.dark[self.dark != row]
        return before

    def gone(self, index: int) -> int:
        """Devices of the cut of this wave that were removed since it was counted."""
        since = self.state.waves[index].counted_at
        return sum(at >= since and 0 <= wave <= index for at, wave in self._gone)

    def note_progress(self, row: int, at: float) -> None:
        """Record a start. Newcomers to the wave do not prolong the wait for stragglers."""
        if row < self._enrolled:
            self.reservations.note_progress(at)

    def waves_of(self, rows: Rows) -> npt.NDArray[np.int16]:
        """The first opened wave that contains each of ``rows``. -1 if there is none."""
        return self.scope.firsts(rows, self.parts)

    def inside(self, row: int) -> bool:
        """True if the device is in the open wave or in an earlier one."""
        return self.scope.eligible(row) and self.scope.inside(row, self.reach)

    def members(self) -> Rows:
        """Rows in the open wave and in earlier waves, ascending."""
        return self.scope.members(self.reach)

    def follows(self, row: int) -> bool:
        """True if the rollout follows newcomers or the device enrolled before its end."""
        end = self.state.rows_at_end
        return self.state.spec.follow or end is None or row < end

    def takes_back(self, row: int) -> bool:
        """True if the release is taken back from the device by this rollout."""
        if self.state.status in WITHDRAWN:
            return self.ledger.standing(row) is not _NONE or self.scope.eligible(row)
        return self.takes_back_part(row)

    def takes_back_part(self, row: int) -> bool:
        """True if the release is taken back from a part of the devices, and from this device."""
        return bool(self.taken) and self.taken.has(row)

    def all_taken_back(self, rows: Rows) -> Mask:
        """``takes_back_part`` for each of ``rows``, which must ascend."""
        return self.taken.all_have(rows)

    def is_in_holdback(self, row: int) -> bool:
        """True if the device waits for the end of the bake, or for an alert to clear."""
        if self._has_alert:
            return True
        return self._holdback_from is not None and self.scope.position(row) >= self._holdback_from

    def all_in_holdback(self, rows: Rows) -> Mask:
        """``is_in_holdback`` for each of ``rows``."""
        if self._has_alert or self._holdback_from is None:
            return np.full(len(rows), self._has_alert)
        return self.scope.positions(rows) >= np.uint64(self._holdback_from)

    def is_sampled(self, row: int) -> bool:
        """True if the requests of the device count in the windows of the bake."""
        return self._sampled_below is None or self.scope.position(row) < self._sampled_below

    def all_sampled(self, rows: Rows) -> Rows:
        """Those of ``rows`` whose requests count in the windows of the bake."""
        if self._sampled_below is None:
            return rows
        return rows[self.scope.positions(rows) < np.uint64(self._sampled_below)]

    def position(self, row: int) -> Position:
        """The position of the device now."""
        standing, has_place = self.ledger.standing(row), self.reservations.has_place(row)
        if standing is _TRIAL or standing is _HEALTHY:  # counted in its wave already
            return Position(standing, is_eligible=True, wave=None, has_place=has_place)
        is_eligible, wave = self.scope.locate(row, self.parts)
        return Position(standing, is_eligible, wave, has_place)

    def position_of_report(self, row: int, kind: OutcomeKind) -> Position | None:
        """The position of a device that reports ``kind``. None if the report does not concern it.

        A report concerns the rollout if the device reported before or has a place, if the device is
        in a wave, or if the device may be rolling back.
        """
        position = self.position(row)
        if position.standing is not _NONE or position.has_place:
            return position
        if not self.reach or not position.is_eligible:
            return None
        if self.state.status not in _EXACT:
            if kind is OutcomeKind.REVERTED:
                return position
            if self.state.status is _COMPLETED:
                return position if self.follows(row) else None
        return None if position.wave is None else position

    def reserve(self, row: int, labels: Mapping[str, str], now: float) -> None:
        """Reserve a place for a device that starts now."""
        self.reservations.reserve(row, labels, now, is_progress=row < self._enrolled)

    def began(self, row: int, at: float | None) -> None:
        """Turn the place of the device into a recorded start."""
        self.reservations.began(row, at, is_progress=row < self._enrolled)

    def have_part(self, rows: Rows, kind: OutcomeKind) -> Mask:
        """For each of ``rows``: True if ``position_of_report`` is not None."""
        part: Mask = self.ledger.standings(rows) != _NONE
        if not self.reach or part.all():
            return part
        status = self.state.status
        if status not in _EXACT and kind is OutcomeKind.REVERTED:
            return part | self.scope.all_eligible(rows)
        if status is not _COMPLETED:
            return part | self.scope.all_inside(rows, self.reach)
        end = None if self.state.spec.follow else self.state.rows_at_end
        given = self.scope.all_eligible(rows)
        return part | (given if end is None else given & (rows < end))

    @property
    def model(self) -> str:
        """The model of the release."""
        return self.state.spec.model

    def covers(self, row: int, running: frozenset[int]) -> bool:
        """True if this rollout gives the device its release.

        ``running`` are the numbers of the releases that the device runs now. A device in trial or
        confirmed keeps the release, even if its labels change. A paused or halted rollout gives the
        release only to devices that run it already. A completed rollout gives the release to
        newcomers if it follows them.
        """
        standing = self.ledger.standing(row)
        if standing is _TRIAL or standing is _HEALTHY:
            return not self.takes_back_part(row)
        return self.gives(row, standing, running)

    def gives(
        self,
        row: int,
        standing: DeviceStanding,
        running: frozenset[int],
        position: Position | None = None,
    ) -> bool:
        """``covers`` for a device that has not started. A known ``position`` is not read again."""
        if not self.reach or standing in EXCLUDED:
            return False
        if self.takes_back_part(row):
            return False
        if not (self.scope.eligible(row) if position is None else position.is_eligible):
            return False
        status = self.state.status
        if status is _COMPLETED:
            gives = self.follows(row) and not self.is_in_holdback(row)
            return gives or self.release.number in running
        exposes = status is _RUNNING or self.release.number in running
        if not exposes:
            return False
        if position is not None:
            return position.wave is not None
        return self.scope.inside(row, self.reach)

    def covered(self, rows: Rows, fleet: Fleet) -> Mask:
        """``covers`` for each of the ascending ``rows``, excluded devices included."""
        given = self._all_covered(rows, fleet)
        return given & ~self.all_taken_back(rows) if self.state.taken_back else given

    def _all_covered(self, rows: Rows, fleet: Fleet) -> Mask:
        standings = self.ledger.standings(rows)
        given: Mask = (standings == _TRIAL) | (standings == _HEALTHY)
        if not self.reach:
            return given
        if self.state.status is _COMPLETED:
            end = None if self.state.spec.follow else self.state.rows_at_end
            eligible = self.scope.all_eligible(rows)
            out = self.all_in_holdback(rows)
            if end is not None:
                out |= rows >= end
            if out.any():
                eligible &= ~out | fleet.models.all_run(rows, self.release.number)
            given |= eligible
        elif self.state.status is _RUNNING:
            given |= self.scope.all_inside(rows, self.reach)
        else:
            runs_it = fleet.models.all_run(rows, self.release.number)
            given |= self.scope.all_inside(rows, self.reach) & runs_it
        return given
