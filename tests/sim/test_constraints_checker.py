"""The constraints checker counts grants, including grants by offer until they are deferred."""

from types import SimpleNamespace

import numpy as np
from msgspec.structs import replace

from edgefleet.protocol.device import OutcomeKind
from edgefleet.protocol.rollout import PaceSpec
from edgefleet.sim.virtual.checkers.constraints import Constraints
from support.fleets import memory_hub
from support.plans import outcome, spec

OFFERED, DEFERRED, STARTED = (
    OutcomeKind.OFFERED,
    OutcomeKind.DEFERRED,
    OutcomeKind.TRIAL_STARTED,
)


class Watched:
    """A rollout with at most two starts a minute, and the violations that the checker reports."""

    def __init__(self) -> None:
        hub = memory_hub(10, "1")
        paced = replace(spec("1", 100), pace=PaceSpec(starts_per_minute=2))
        rollout = hub.plan(paced, salt=1)
        run = SimpleNamespace(engine=hub.engine, name=lambda row: f"d{row}")
        self.violations: list[str] = []
        self._rollout = rollout
        self._checker = Constraints(run, lambda _name, text: self.violations.append(text))
        self._checker.changed(None, hub.engine.states()[0], hub.now)

    def stored(self, row: int, kind: OutcomeKind, at: float) -> None:
        self._checker.stored(np.array([row]), outcome(self._rollout, "1", kind, at=at), at)


def test_a_deferred_grant_makes_room_for_another_start() -> None:
    watched = Watched()
    for row in (0, 1):
        watched.stored(row, OFFERED, 100.0)
    watched.stored(0, DEFERRED, 101.0)
    watched.stored(1, STARTED, 102.0)
    watched.stored(2, STARTED, 103.0)
    assert watched.violations == []
    watched.stored(3, STARTED, 103.0)
    assert watched.violations == ["d3 starts: 3 starts within a minute; 2 are allowed"]


def test_a_used_grant_is_not_returned() -> None:
    watched = Watched()
    watched.stored(0, OFFERED, 100.0)
    watched.stored(0, STARTED, 101.0)
    watched.stored(0, DEFERRED, 102.0)
    watched.stored(1, STARTED, 103.0)
    assert watched.violations == []
    watched.stored(2, OFFERED, 104.0)
    assert watched.violations == ["d2 starts: 3 starts within a minute; 2 are allowed"]
