"""The checker of plans counts leaves: those that come with an offer too, until they are put off."""

from types import SimpleNamespace

import numpy as np
from msgspec.structs import replace

from edgefleet.protocol.device import OutcomeKind
from edgefleet.protocol.rollout import PaceSpec
from edgefleet.sim.virtual.checkers.constraints import Planned
from support.toy_rollout import ToyShell, outcome, spec

OFFERED, DEFERRED, STARTED = (
    OutcomeKind.OFFERED,
    OutcomeKind.DEFERRED,
    OutcomeKind.TRIAL_STARTED,
)


class Watched:
    """A rollout of two starts a minute, and what the checker says of it."""

    def __init__(self) -> None:
        shell = ToyShell(10)
        shell.publish("1")
        paced = replace(spec("1", 100), pace=PaceSpec(starts_per_minute=2))
        rollout = shell.plan(paced, salt=1)
        crowd = SimpleNamespace(engine=shell.engine, name=lambda row: f"d{row}")
        self.said: list[str] = []
        self._rollout = rollout
        self._checker = Planned(crowd, lambda _name, text: self.said.append(text))
        self._checker.changed(None, shell.engine.states()[0], shell.now)

    def stored(self, row: int, kind: OutcomeKind, at: float) -> None:
        self._checker.stored(np.array([row]), outcome(self._rollout, "1", kind, at=at), at)


def test_a_leave_that_is_put_off_makes_room_for_one() -> None:
    watched = Watched()
    for row in (0, 1):
        watched.stored(row, OFFERED, 100.0)
    watched.stored(0, DEFERRED, 101.0)
    watched.stored(1, STARTED, 102.0)
    watched.stored(2, STARTED, 103.0)
    assert watched.said == []
    watched.stored(3, STARTED, 103.0)
    assert watched.said == ["d3 makes it 3 starts within a minute"]


def test_a_leave_that_is_used_is_not_given_back() -> None:
    watched = Watched()
    watched.stored(0, OFFERED, 100.0)
    watched.stored(0, STARTED, 101.0)
    watched.stored(0, DEFERRED, 102.0)
    watched.stored(1, STARTED, 103.0)
    assert watched.said == []
    watched.stored(2, OFFERED, 104.0)
    assert watched.said == ["d2 makes it 3 starts within a minute"]
