"""The reservations of one rollout, and the reasons why a device may not start now.

Doors close a rollout to every device: freeze, approval, maintenance window. Limits bound the number
of devices: exposure, start rate, budgets. A reservation begins when a start is admitted, and ends
when the start is recorded; the device then counts as in trial.
"""

from collections.abc import Callable, Mapping, Sequence

from edgefleet.base.texts import are, counted
from edgefleet.protocol.rollout import RolloutSpec
from edgefleet.protocol.why import WaitCode
from edgefleet.rollout.constraints import approval
from edgefleet.rollout.constraints.blocked import Blocked
from edgefleet.rollout.constraints.fleet_wide import FleetConstraints
from edgefleet.rollout.constraints.pace import StartRate
from edgefleet.rollout.constraints.window import LABEL, Hours, Offset
from edgefleet.rollout.fleet.columns import Rows
from edgefleet.rollout.lifecycle.state import RolloutState

OnChange = Callable[[Sequence[int], int], None]
"""Is told the rows that get a place (1), or have none any more (-1)."""


class Reservations:
    """The reservations of one rollout. After a restart they are rebuilt from recorded outcomes."""

    def __init__(
        self, rollout: str, spec: RolloutSpec, fleet_wide: FleetConstraints, offset: Offset
    ) -> None:
        self._rollout = rollout
        self._spec = spec
        self.fleet_wide = fleet_wide
        self.hours = Hours(spec.windows, offset)
        self.starts = StartRate(spec.pace.starts_per_minute)
        # Time of the last start that was admitted, or that a window blocked.
        self.progress_at = 0.0
        self._offered: set[int] = set()  # rows whose download was counted
        self._reserved: dict[int, tuple[int, float]] = {}  # row -> (how many admissions, since)
        self.on_change: OnChange | None = None

    @property
    def reserved(self) -> int:
        """Number of devices that are admitted and have no recorded start."""
        return len(self._reserved)

    @property
    def reserved_rows(self) -> tuple[int, ...]:
        return tuple(self._reserved)

    def door(
        self, state: RolloutState, labels: Mapping[str, str] | None, now: float
    ) -> Blocked | None:
        """The reason of the first closed door. None if all doors are open.

        ``labels`` are those of one device. None asks for a door that is closed to every device.
        """
        freeze = self.fleet_wide.freeze
        if freeze.frozen:
            return Blocked(
                WaitCode.FREEZE,
                f"{freeze.person} has frozen the whole fleet. "
                "Run `edgefleet fleet thaw` to end the freeze.",
                since=freeze.since,
            )
        if state.spec.approval.people and (people := approval.missing(state)):
            given = ", ".join(approval.approvers(state)) or "none"
            needed = "1 more approval is" if people == 1 else f"{people} more approvals are"
            return Blocked(
                WaitCode.APPROVAL,
                f"{needed} needed (so far: {given}){approval.not_by(state)}. "
                f"Run `edgefleet rollout approve {state.id}`.",
            )
        return None if self.hours.always else self.shut(labels, now)

    def shut(self, labels: Mapping[str, str] | None, now: float) -> Blocked | None:
        """The reason if no maintenance window is open for a device with ``labels``. None if one is.

        Without ``labels``: only if no window is open for any device.
        """
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
        reason: Callable[[], str],
    ) -> Blocked | None:
        """The limit that is reached for the device. None if none is, or if it has a place already.

        ``started`` devices have reported their start and no outcome. ``reason`` says why no more
        than ``allowed`` devices may be in trial.
        """
        if self.has_place(row):
            return None
        in_trial = started + self.reserved
        if in_trial >= allowed:
            trial = f"{counted(in_trial, 'device')} {are(in_trial)} in trial"
            text = f"{trial} (limit {allowed}): {reason()}."
            return Blocked(WaitCode.EXPOSURE, text)
        if self.starts.most and (until := self.starts.wait_until(now)) is not None:
            text = f"The rate limit of {self.starts.most} starts per minute is reached."
            return Blocked(WaitCode.PACE, text, until)
        budgets = self._spec.budgets
        if budgets and (full := self.fleet_wide.budgets.full(budgets, labels)) is not None:
            value = labels[full.label]
            in_use = self.fleet_wide.budgets.in_use(full.label, value)
            return Blocked(
                WaitCode.BUDGET,
                f"The budget of {full.label}={value} is full: "
                f"{in_use} of {full.max_in_trial} in trial.",
            )
        return None

    def has_place(self, row: int) -> bool:
        """True if the device is admitted and has no recorded start."""
        return row in self._reserved

    def reserve(
        self, row: int, labels: Mapping[str, str], now: float, *, is_progress: bool = False
    ) -> None:
        """Reserve a place. A second call for the same device keeps the first reservation.

        With ``is_progress`` the patience for stragglers starts again.
        """
        if is_progress:
            self.note_progress(now)
        if row in self._reserved:
            times, since = self._reserved[row]
            self._reserved[row] = (times + 1, since)
            return
        self._reserved[row] = (1, now)
        self._changed((row,), 1)
        if self.starts.most:
            self.starts.add(now)
        if self.fleet_wide.budgets.counts:
            self.begin_trial(row, labels)

    def reserve_all(self, rows: Rows, now: float) -> None:
        """``reserve`` for many rows without a reservation. Requires that no budget is counting."""
        new = rows.tolist()
        self._reserved.update(dict.fromkeys(new, (1, now)))
        self._changed(new, 1)
        self.starts.add(now, len(rows))

    def free(self, row: int) -> None:
        """Return an unused reservation. It is freed after as many calls as ``reserve`` had."""
        if row not in self._reserved:
            return
        times, since = self._reserved.pop(row)
        if times > 1:
            self._reserved[row] = (times - 1, since)
        else:
            self._changed((row,), -1)
            self.starts.remove(since)
            self.end_trial(row)

    def forget(self, row: int) -> None:
        """Free all places of a device that was removed from the fleet."""
        if self._reserved.pop(row, None) is not None:
            self._changed((row,), -1)
        self._offered.discard(row)
        self.end_trial(row)

    def began(self, row: int, at: float | None, *, is_progress: bool = False) -> None:
        """End the reservation, because the start of the device is recorded.

        The start rate counts the time of the reservation, or ``at`` without one. With
        ``is_progress`` the patience for stragglers starts again.
        """
        if is_progress and at is not None:
            self.note_progress(at)
        if self._reserved.pop(row, None) is not None:
            self._changed((row,), -1)
        elif at is not None:
            self.starts.add(at)

    def _changed(self, rows: Sequence[int], change: int) -> None:
        if self.on_change is not None:
            self.on_change(rows, change)

    def note_progress(self, at: float) -> None:
        """Restart the patience: a start was admitted, or blocked by the window of its device."""
        self.progress_at = max(self.progress_at, at)

    def begin_trial(self, row: int, labels: Mapping[str, str]) -> None:
        """Count the device in the fleet-wide budgets."""
        self.fleet_wide.budgets.begin(self._rollout, row, labels)

    def end_trial(self, row: int) -> None:
        """Free the place of the device in the fleet-wide budgets."""
        self.fleet_wide.budgets.end(self._rollout, row)

    def begin_download(self, row: int) -> bool:
        """Record that this rollout offers the device its download. False if it did before."""
        before = len(self._offered)
        self._offered.add(row)
        return len(self._offered) > before

    def has_download(self, row: int) -> bool:
        """True if the bytes of the download to the device are counted."""
        return row in self._offered

    def forget_downloads(self) -> None:
        """Drop the record of downloads, as a restart does: the bytes of a next one count again."""
        self._offered.clear()

    def patience_from(self, state: RolloutState, now: float) -> float:
        """Start of the patience for stragglers, in seconds since the epoch.

        It is ``now`` while a door is closed to every device.
        """
        if self.door(state, None, now) is not None:
            return now
        wave = state.open_wave
        agreed = (given.at for given in state.approvals)
        return max(
            0.0 if wave is None or wave.opened_at is None else wave.opened_at,
            state.since,
            self.fleet_wide.freeze.since or 0.0,
            0.0 if self.hours.always else self.hours.open_since(now),
            self.progress_at,
            *agreed,
        )
