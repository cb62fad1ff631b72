"""The places of one rollout, and the reasons why a device may not start now.

A door is closed to every device: freeze, approval, maintenance window. Places run out: exposure,
start rate, budgets. A place is reserved when a start is admitted, and kept while the device is in
trial.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from edgefleet.protocol.rollout import RolloutSpec
from edgefleet.protocol.why import WaitCode
from edgefleet.rollout.constraints import approval
from edgefleet.rollout.constraints.fleet_wide import FleetConstraints
from edgefleet.rollout.constraints.overdue import Overdue
from edgefleet.rollout.constraints.pace import StartRate
from edgefleet.rollout.constraints.window import LABEL, Hours, Offset
from edgefleet.rollout.fleet.columns import Rows
from edgefleet.rollout.lifecycle.state import RolloutState
from edgefleet.rollout.limits import PUT_OFF_S

DOORS: Final = frozenset({WaitCode.FREEZE, WaitCode.APPROVAL, WaitCode.WINDOW})
"""Reasons that close a rollout to every device until a person or the clock opens it."""


@dataclass(frozen=True, slots=True)
class Blocked:
    """The reason why a device gets nothing now, and until when if that is known."""

    code: WaitCode
    text: str
    until: float | None = None
    since: float | None = None


class Reservations:
    """The places of one rollout. Rebuilt from the recorded outcomes."""

    def __init__(
        self, rollout: str, spec: RolloutSpec, fleet_wide: FleetConstraints, offset: Offset
    ) -> None:
        self._rollout = rollout
        self._spec = spec
        self.fleet_wide = fleet_wide
        self.hours = Hours(spec.windows, offset)
        self.starts = StartRate(spec.pace.starts_per_minute)
        self.progress_at = 0.0  # when a start was last admitted, or blocked by a closed window
        self._offered: set[int] = set()  # rows whose download was counted
        self._reserved: dict[int, tuple[int, float]] = {}  # row -> (how often, since)
        self._granted: dict[int, float] = {}  # row -> since; with its offer, see ``grants``
        self._put_off: dict[int, float] = {}  # row -> until

    @property
    def reserved(self) -> int:
        """Devices that were admitted, or granted with their offer, and are not recorded yet."""
        return len(self._reserved) + len(self._granted)

    @property
    def granted(self) -> tuple[int, ...]:
        """Rows that hold a grant and did not report a start."""
        return tuple(self._granted)

    @property
    def reserved_rows(self) -> tuple[int, ...]:
        return (*self._reserved, *self._granted)

    def door(
        self, state: RolloutState, labels: Mapping[str, str] | None, now: float
    ) -> Blocked | None:
        """The door that is closed to every device, or to the device with ``labels``.

        None if all doors are open.
        """
        freeze = self.fleet_wide.freeze
        if freeze.frozen:
            return Blocked(
                WaitCode.FREEZE, f"{freeze.person} has frozen the whole fleet.", since=freeze.since
            )
        if state.spec.approval.people and (people := approval.missing(state)):
            given = ", ".join(approval.approvers(state)) or "nobody"
            return Blocked(
                WaitCode.APPROVAL,
                f"{people} more must approve it (so far: {given}): "
                f"edgefleet rollout approve {state.id}.",
            )
        return None if self.hours.always else self.shut(labels, now)

    def shut(self, labels: Mapping[str, str] | None, now: float) -> Blocked | None:
        """The window that has to open first; without ``labels``, for every device there may be."""
        zone = None if labels is None else labels.get(LABEL)
        if labels is None and self.hours.by_device:
            return None
        if self.hours.open(zone, now):
            return None
        until = self.hours.next_open(zone, now)
        return Blocked(WaitCode.WINDOW, "No maintenance window is open.", until)

    def no_place(
        self,
        row: int,
        labels: Mapping[str, str],
        now: float,
        *,
        allowed: int,
        started: int,
        overdue: Overdue,
    ) -> Blocked | None:
        """The constraint that has no place left for the device. None if it has one already.

        ``started`` devices have reported their start and no end.
        """
        if row in self._reserved or row in self._granted:
            return None
        in_trial = started + len(self._reserved) + len(self._granted)
        if in_trial >= allowed:
            return Blocked(
                WaitCode.EXPOSURE,
                f"{in_trial} devices are in trial{self.unsaid}: {overdue.reason}.",
            )
        if self.starts.most and (until := self.starts.wait_until(now)) is not None:
            return Blocked(WaitCode.PACE, "Enough devices began in the last minute.", until)
        budgets = self._spec.budgets
        if budgets and (full := self.fleet_wide.budgets.full(budgets, labels)) is not None:
            return Blocked(
                WaitCode.BUDGET,
                f"{full.max_in_trial} in trial with {full.label}={labels[full.label]}: "
                "as many as the budget allows.",
            )
        return None

    @property
    def unsaid(self) -> str:
        """How many of those in trial may have begun and did not say so, in words."""
        return f", or start by themselves ({len(self._granted)})" if self._granted else ""

    def holds(self, row: int) -> bool:
        """True when the device was admitted and is not recorded yet."""
        return row in self._reserved or row in self._granted

    def take(
        self, row: int, labels: Mapping[str, str], now: float, *, is_progress: bool = False
    ) -> None:
        """Reserve a place; the same device again holds the same one."""
        if is_progress:
            self.progress_at = max(self.progress_at, now)
        if row in self._granted:
            return
        if row in self._reserved:
            times, since = self._reserved[row]
            self._reserved[row] = (times + 1, since)
            return
        self._reserved[row] = (1, now)
        if self.starts.most:
            self.starts.add(now)
        if self.fleet_wide.budgets.counts:
            self.fleet_wide.budgets.begin(self._rollout, row, labels)

    def take_all(self, rows: Rows, now: float) -> None:
        """``take`` for many rows that hold no place yet, where no budget counts them."""
        self._reserved.update(dict.fromkeys(rows.tolist(), (1, now)))
        self.starts.add(now, len(rows))

    def release(self, row: int) -> None:
        """Give a place back that was not used; it goes when all who took it gave it back."""
        if row not in self._reserved:
            return
        times, since = self._reserved.pop(row)
        if times > 1:
            self._reserved[row] = (times - 1, since)
        else:
            self.starts.remove(since)
            self.end_trial(row)

    def began(self, row: int, at: float | None, *, is_progress: bool = False) -> None:
        """Its start is recorded. Only the reserved time or ``at`` counts for the pace."""
        if is_progress and at is not None:
            self.progress_at = max(self.progress_at, at)
        reserved = self._reserved.pop(row, None)
        granted = self._granted.pop(row, None)
        if reserved is None and granted is None and at is not None:
            self.starts.add(at)

    def granted_since(self, row: int) -> float | None:
        """When its offer was made its grant; None when it holds none."""
        return self._granted.get(row)

    def grant(self, row: int, labels: Mapping[str, str], at: float) -> bool:
        """Its offer is durable: the place that was reserved for it is its own, from ``at`` on.

        False when none was reserved: it is a grant from the record.
        """
        reserved = self._reserved.pop(row, None) is not None
        if not reserved:
            self.starts.add(at)
            self.fleet_wide.budgets.begin(self._rollout, row, labels)
        self._granted[row] = at
        return reserved

    def take_back(self, row: int) -> None:
        """It did not begin, and is not going to."""
        at = self._granted.pop(row, None)
        if at is not None:
            self.starts.remove(at)
            self.end_trial(row)

    def ended(self, row: int) -> None:
        """It said how it went, without having said that it began."""
        if self._granted.pop(row, None) is not None:
            self.end_trial(row)

    def put_off(self, row: int, at: float) -> None:
        """A device with a grant cannot begin now: it is told to leave it for a while."""
        if row in self._granted:
            self._put_off[row] = at + PUT_OFF_S

    def is_put_off(self, row: int, now: float) -> bool:
        return now < self._put_off.get(row, now)

    def note_progress(self, at: float) -> None:
        """A start was admitted, or held back by its device's own window: patience runs on."""
        self.progress_at = max(self.progress_at, at)

    def begin_trial(self, row: int, labels: Mapping[str, str]) -> None:
        """Count the device in the budgets of the fleet."""
        self.fleet_wide.budgets.begin(self._rollout, row, labels)

    def end_trial(self, row: int) -> None:
        """Free the place of the device in the budgets of the fleet."""
        self.fleet_wide.budgets.end(self._rollout, row)

    def begin_download(self, row: int) -> bool:
        """Note that this rollout offers the device its download. False if it did so before."""
        before = len(self._offered)
        self._offered.add(row)
        return len(self._offered) > before

    def has_download(self, row: int) -> bool:
        """True when the bytes of the device's download were counted."""
        return row in self._offered

    def patience_from(self, state: RolloutState, now: float) -> float:
        """Since when stragglers have had their chance: now, while a door is closed to everybody."""
        if self.door(state, None, now) is not None:
            return now
        wave = state.open_wave
        agreed = (given.at for given in state.approvals)
        return max(
            0.0 if wave is None or wave.opened_at is None else wave.opened_at,
            state.since,
            self.fleet_wide.freeze.since or 0.0,
            self.hours.open_since(now),
            self.progress_at,
            *agreed,
        )
