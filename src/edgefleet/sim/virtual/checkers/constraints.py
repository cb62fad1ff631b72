"""Budgets, windows, pace and the scheduled start are respected at every instant."""

from collections import Counter, deque
from datetime import UTC, datetime, timedelta
from typing import ClassVar
from zoneinfo import ZoneInfo

from edgefleet.protocol.device import Outcome, OutcomeKind
from edgefleet.protocol.rollout import RolloutSpec, WindowSpec
from edgefleet.rollout.fleet.columns import Rows
from edgefleet.rollout.lifecycle.state import RolloutState
from edgefleet.sim.virtual.observer import TRIAL_ENDS, Checker, Report
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
        self._within: Counter[str] = Counter()  # starts in ``_starts``, by rollout

    def changed(self, before: RolloutState | None, after: RolloutState, now: float) -> None:
        self._specs.setdefault(after.id, after.spec)

    def stored(self, rows: Rows, outcome: Outcome, now: float) -> None:
        spec = self._specs.get(outcome.rollout)
        if spec is None:
            return
        if outcome.kind in TRIAL_ENDS and self._reserved:
            for row in rows.tolist():
                for budget in self._reserved.pop((outcome.rollout, row), ()):
                    self._trial[budget] -= 1
        if outcome.kind is OutcomeKind.TRIAL_STARTED:
            for row in rows.tolist() if spec.budgets else ():
                self._check_budgets(row, outcome.rollout, spec)
            self._check_times(rows, outcome.rollout, spec, now)

    def _check_budgets(self, row: int, rollout: str, spec: RolloutSpec) -> None:
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

    def _check_times(self, rows: Rows, rollout: str, spec: RolloutSpec, now: float) -> None:
        for row in rows.tolist() if spec.windows else ():
            zone = self.engine.fleet.labels(row).get("timezone", "UTC")
            if not any(_open(window, zone, now) for window in spec.windows):
                self.wrong(f"{self.run.name(row)} starts outside every window")
        if spec.start_at is not None and now < spec.start_at:
            self.wrong(f"{self.named(rows)} starts before the scheduled start")
        if spec.pace.starts_per_minute:
            starts = self._starts.setdefault(rollout, deque())
            starts.append((now, len(rows)))
            self._within[rollout] += len(rows)
            while starts[0][0] <= now - 60.0:
                self._within[rollout] -= starts.popleft()[1]
            within = self._within[rollout]
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
