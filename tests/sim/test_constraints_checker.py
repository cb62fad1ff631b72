"""The constraints checker counts the starts within a minute."""

from types import SimpleNamespace

import numpy as np
from msgspec.structs import replace

from edgefleet.protocol.device import OutcomeKind
from edgefleet.protocol.rollout import PaceSpec
from edgefleet.sim.virtual.checkers.constraints import Constraints
from support.fleets import memory_hub
from support.plans import outcome, spec

STARTED = OutcomeKind.TRIAL_STARTED


def test_a_start_above_the_pace_is_a_violation() -> None:
    hub = memory_hub(10, "1")
    rollout = hub.plan(replace(spec("1", 100), pace=PaceSpec(starts_per_minute=2)), salt=1)
    run = SimpleNamespace(engine=hub.engine, name=lambda row: f"d{row}")
    violations: list[str] = []
    checker = Constraints(run, lambda _name, text: violations.append(text))
    checker.changed(None, hub.engine.states()[0], hub.now)

    def stored(row: int, kind: OutcomeKind, at: float) -> None:
        checker.stored(np.array([row]), outcome(rollout, "1", kind, at=at), at)

    stored(0, STARTED, 100.0)
    stored(0, OutcomeKind.CONFIRMED, 101.0)
    stored(1, STARTED, 159.0)
    stored(2, STARTED, 160.0)
    assert violations == []
    stored(3, STARTED, 161.0)
    assert violations == ["d3 starts: 3 starts within a minute; 2 are allowed"]
