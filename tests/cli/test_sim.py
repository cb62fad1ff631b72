"""``edgefleet sim swarm``: a summary, and the command that replays a failure."""

import pytest

from edgefleet.protocol.wire import decode
from edgefleet.sim.virtual.swarm import SwarmResult
from support.command_line import CommandLine

SWARM = ("sim", "swarm", "--seeds", "3", "--devices", "300", "--processes", "1", "--json")


def test_a_swarm_tells_how_often_each_verdict_and_each_fault_occurred(
    edgefleet: CommandLine,
) -> None:
    ran = edgefleet(*SWARM)
    result = decode(ran.out.encode(), SwarmResult)
    assert (ran.exit, result.violations, result.unfinished) == (0, 0, 0)
    assert sum(result.verdicts.values()) == sum(result.reasons.values()) == result.seeds == 3
    assert all(count > 0 for count in result.faults.values())
    assert "3 of 3 seeds" in ran.err


def test_a_seed_that_fails_is_told_once_with_its_command(
    edgefleet: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "edgefleet.rollout.constraints.reservations.Reservations.no_place", lambda *_: None
    )
    ran = edgefleet(*SWARM)
    result = decode(ran.out.encode(), SwarmResult)
    assert ran.exit != 0
    first = f"edgefleet sim replay {result.failing[0]} --devices 300"
    assert f"{ran.out}{ran.err}".count(first) == 1
