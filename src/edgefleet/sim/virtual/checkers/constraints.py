"""Budgets, windows, pace and the scheduled start are respected at every instant.

Windows and the pace limit grants; budgets limit starts. A grant that came with an offer no longer
counts for the pace if the device defers it.
"""

from collections import Counter, deque
from datetime import UTC, datetime, timedelta
from typing import ClassVar
from zoneinfo import ZoneInfo

from edgefleet.protocol.device import Outcome, OutcomeKind
from edgefleet.protocol.rollout import RolloutSpec, WindowSpec
from edgefleet.rollout.fleet.columns import Rows
from edgefleet.rollout.lifecycle.state import RolloutState
from edgefleet.sim.virtual.checkers.grants_seen import ENDS, ObservedGrants
from edgefleet.sim.virtual.observer import Checker, Report
from edgefleet.sim.virtual.truth import RunView

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class Constraints(Checker):
    """Compares every start with the plan, with its own local time and its own counts."""

    name: ClassVar[str] = "planned"

    def __init__(self, run: RunView, report: Report) -> None:
        super().__init__(run, report)
        self._specs: dict[str, RolloutSpec] = {}
        self._trial: Counter[tuple[str, str, str]] = Counter()
        self._reserved: dict[tuple[str, int], list[tuple[str, str, str]]] = {}
        self._starts: dict[str, deque[tuple[float, int]]] = {}
        self._grants = ObservedGrants()
        self._offered: dict[tuple[str, int], float] = {}  # time of each unused grant by offer

    def changed(self, before: RolloutState | None, after: RolloutState, now: float) -> None:
        self._specs.setdefault(after.id, after.spec)

    def stored(self, rows: Rows, outcome: Outcome, now: float) -> None:
        spec = self._specs.get(outcome.rollout)
        if spec is None:
            return
        if outcome.kind in ENDS and self._reserved:
            for row in rows.tolist():
                for budget in self._reserved.pop((outcome.rollout, row), ()):
                    self._trial[budget] -= 1
        if outcome.kind is OutcomeKind.TRIAL_STARTED and spec.budgets:
            for row in rows.tolist():
                self._start(row, outcome.rollout, spec)
        if spec.pace.starts_per_minute:
            self._track_offers(rows, outcome, now)
        granted = self._grants.granted(rows, outcome)
        if len(granted):
            self._grant(granted, outcome.rollout, spec, now)

    def _track_offers(self, rows: Rows, outcome: Outcome, now: float) -> None:
        """Track grants by offer: each is used or deferred."""
        for row in rows.tolist():
            if outcome.kind is OutcomeKind.OFFERED:
                self._offered[outcome.rollout, row] = now
                continue
            at = self._offered.pop((outcome.rollout, row), None)
            if at is not None and outcome.kind is OutcomeKind.DEFERRED:
                self._return_start(self._starts[outcome.rollout], at)

    def _return_start(self, starts: deque[tuple[float, int]], at: float) -> None:
        """Subtract one of the starts that were granted at ``at``."""
        for place, (when, count) in enumerate(starts):
            if when == at and count:
                starts[place] = (when, count - 1)
                return

    def _start(self, row: int, rollout: str, spec: RolloutSpec) -> None:
        name, labels = self.run.name(row), self.engine.fleet.labels(row)
        for budget in spec.budgets:
            value = labels.get(budget.label)
            if value is None:
                continue
            key = (rollout, budget.label, value)
            self._trial[key] += 1
            self._reserved.setdefault((rollout, row), []).append(key)
            if self._trial[key] > budget.max_in_trial:
                self.wrong(
                    f"{name} starts: {self._trial[key]} devices in trial with "
                    f"{budget.label}={value}; {budget.max_in_trial} are allowed"
                )

    def _grant(self, rows: Rows, rollout: str, spec: RolloutSpec, now: float) -> None:
        for row in rows.tolist() if spec.windows else ():
            zone = self.engine.fleet.labels(row).get("timezone", "UTC")
            if not any(_open(window, zone, now) for window in spec.windows):
                self.wrong(f"{self.run.name(row)} starts outside every window")
        if spec.start_at is not None and now < spec.start_at:
            self.wrong(f"{self.named(rows)} starts before the scheduled start")
        if spec.pace.starts_per_minute:
            starts = self._starts.setdefault(rollout, deque())
            starts.append((now, len(rows)))
            while starts[0][0] <= now - 60.0:
                starts.popleft()
            within = sum(count for _, count in starts)
            if within > spec.pace.starts_per_minute:
                self.wrong(
                    f"{self.named(rows)} starts: {within} starts within a minute; "
                    f"{spec.pace.starts_per_minute} are allowed"
                )


def _open(window: WindowSpec, own_zone: str, now: float) -> bool:
    """Whether the window is open in local time. A window may have started yesterday."""
    name = own_zone if window.timezone == "device" else window.timezone
    local = datetime.fromtimestamp(now, UTC).astimezone(ZoneInfo(name))
    start, end = (_minutes(text) for text in (window.start, window.end))
    minute = local.hour * 60 + local.minute
    today, yesterday = (_DAYS[(local - timedelta(days=back)).weekday()] for back in (0, 1))
    days = window.days or _DAYS
    if end > start:
        return today in days and start <= minute < end
    return (today in days and minute >= start) or (yesterday in days and minute < end)


def _minutes(text: str) -> int:
    hours, minutes = text.split(":")
    return int(hours) * 60 + int(minutes)
