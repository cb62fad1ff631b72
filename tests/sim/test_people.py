"""What people hold back stays back: the checkers catch an engine that does not ask them."""

from itertools import pairwise
from typing import Any

import pytest
from msgspec.structs import replace

from edgefleet.protocol.rollout import ApprovalSpec, Freeze
from edgefleet.rollout.admission import Admission, Refusal
from edgefleet.rollout.state import RolloutState
from edgefleet.sim import scenario as scenarios
from edgefleet.sim.run import Run


def played(name: str):
    return Run(scenarios.load(name), name=name, devices=600, seed=7).play_until_over()


def test_a_freeze_that_is_ignored_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    door = Admission.door
    thawed = Freeze(frozen=False)
    monkeypatch.setattr(
        Admission, "door", lambda one, state, _, *rest: door(one, state, thawed, *rest)
    )
    assert played("frozen").by_checker.keys() == {"frozen"}


def test_an_approval_that_is_not_waited_for_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    door = Admission.door

    def agreed(one: Admission, state: RolloutState, *rest: Any) -> Refusal | None:
        spec = replace(state.spec, approval=ApprovalSpec())
        return door(one, replace(state, spec=spec), *rest)

    monkeypatch.setattr(Admission, "door", agreed)
    assert "approved" in played("approved").by_checker


def test_a_wave_waits_for_its_people() -> None:
    waves = played("approved").waves
    assert len(waves) == 3
    for before, wave in pairwise(waves):
        assert wave.opened_s - before.opened_s >= 180.0
