"""Every open or watched rollout names what it waits for."""

from typing import ClassVar

from edgefleet.sim.virtual.observer import Checker, Report
from edgefleet.sim.virtual.truth import RunView


class Reasons(Checker):
    """Calls ``why`` for every such rollout once a minute."""

    name: ClassVar[str] = "reasons"

    def __init__(self, run: RunView, report: Report) -> None:
        super().__init__(run, report)
        self._asked_at = 0.0

    def ticked(self, now: float) -> None:
        if now - self._asked_at < 60.0:
            return
        self._asked_at = now
        for rollout in self.engine.evaluated_rollouts():
            report = self.engine.why_rollout(rollout, now)
            if not report.waits or not report.line:
                self.wrong(f"{rollout} waits, but ``why`` gives no reason")
            for wait in report.waits:
                if not wait.text:
                    self.wrong(f"{rollout}: {wait.code} has no text")
                if wait.until is not None and wait.since is not None and wait.until < wait.since:
                    self.wrong(f"{rollout}: {wait.code} ends before it began")
