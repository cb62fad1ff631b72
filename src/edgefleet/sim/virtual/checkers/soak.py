"""A wave that passes its gate has been open for at least the soak time of the plan."""

from typing import ClassVar

from edgefleet.protocol.rollout import Verdict
from edgefleet.rollout.lifecycle.state import RolloutState
from edgefleet.sim.virtual.observer import Checker

_PASSED = "passed"


class Soak(Checker):
    """Checks each wave when it closes."""

    name: ClassVar[str] = "soak"

    def changed(self, before: RolloutState | None, after: RolloutState, now: float) -> None:
        if before is None or before.wave is None:
            return
        wave = after.waves[before.wave]
        judgement = wave.judgement
        closed = wave.closed_at is not None and before.waves[before.wave].closed_at is None
        if not closed or judgement is None or wave.opened_at is None:
            return
        if judgement.verdict is Verdict.PASS and judgement.reason == _PASSED:
            open_s = now - wave.opened_at
            soak_s = after.spec.gate.soak_s
            if open_s < soak_s:
                self.wrong(f"wave {before.wave + 1} passed after {open_s:g} s of {soak_s:g} s")
