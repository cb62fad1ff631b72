"""The checkers catch an engine that ignores approvals or a freeze."""

from itertools import pairwise
from typing import Any

import pytest
from msgspec.structs import replace

from edgefleet.protocol.rollout import ApprovalSpec, Freeze
from edgefleet.rollout.constraints.blocked import Blocked
from edgefleet.rollout.constraints.reservations import Reservations
from edgefleet.rollout.lifecycle.state import RolloutState
from edgefleet.sim.virtual import scenario as scenarios
from edgefleet.sim.virtual.run import Run


def played(name: str):
    return Run(scenarios.load(name), name=name, devices=600, seed=7).play_until_over()


def test_a_freeze_that_is_ignored_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    door = Reservations.door

    def without_freeze(one: Reservations, *rest: Any) -> Blocked | None:
        fleet_wide, freeze = one.fleet_wide, one.fleet_wide.freeze
        fleet_wide.freeze = Freeze(frozen=False)
        try:
            return door(one, *rest)
        finally:
            fleet_wide.freeze = freeze

    monkeypatch.setattr(Reservations, "door", without_freeze)
    assert played("frozen").by_checker.keys() == {"frozen"}


def test_an_approval_that_is_not_waited_for_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    door = Reservations.door

    def agreed(one: Reservations, state: RolloutState, *rest: Any) -> Blocked | None:
        spec = replace(state.spec, approval=ApprovalSpec())
        return door(one, replace(state, spec=spec), *rest)

    monkeypatch.setattr(Reservations, "door", agreed)
    assert "approved" in played("approved").by_checker


def test_a_wave_waits_for_its_people() -> None:
    waves = played("approved").waves
    assert len(waves) == 3
    for before, wave in pairwise(waves):
        assert wave.opened_s - before.opened_s >= 180.0
