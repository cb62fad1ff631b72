"""``edgefleet sim``: a swarm and the command that replays a failure, and each rollout of a run."""

from pathlib import Path

import pytest

from edgefleet.protocol.wire import decode
from edgefleet.sim.virtual.result import Result
from edgefleet.sim.virtual.swarm import SwarmResult
from support.command_line import CommandLine

SWARM = ("sim", "swarm", "--seeds", "3", "--devices", "200", "--processes", "1", "--json")


@pytest.mark.long
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
    first = f"edgefleet sim replay {result.failing[0]} --devices 200"
    assert f"{ran.out}{ran.err}".count(first) == 1


THREE = ("sim", "run", "--scenario", "three_models", "--devices", "40")


def test_a_run_with_several_rollouts_shows_each_with_its_model(
    edgefleet: CommandLine, tmp_path: Path
) -> None:
    picture = tmp_path / "run.svg"
    ran = edgefleet(*THREE, "--draw", str(picture), "--json")
    result = decode(ran.out.encode(), Result)
    assert [(one.id, one.model, one.release) for one in result.rollouts] == [
        ("ro-1", "digits", "2"), ("ro-2", "detector", "2"), ("ro-3", "faces", "2"),
    ]  # fmt: skip
    for one in result.rollouts:
        assert one.waves
        assert one.exposed == one.curve[-1].exposed > 0
    first, second, third = (one.curve[0].at_s for one in result.rollouts)
    assert first < second < third, "each curve begins when its rollout is planned"
    verdicts = {one.model: one.verdict for one in result.rollouts}
    assert verdicts == {"digits": "completed", "detector": "reverted", "faces": "completed"}
    for one in result.rollouts:
        assert f"{one.id} ({one.model} 2): " in picture.read_text()
    shown = edgefleet(*THREE)
    for one in result.rollouts:
        assert f"rollout      {one.id} ({one.model} {one.release})" in shown.out
        assert f"verdict      {one.verdict} ({one.reason})" in shown.out
    assert "detector running" in shown.err


def test_the_keys_of_a_run_itself_are_those_of_its_first_rollout(edgefleet: CommandLine) -> None:
    result = decode(edgefleet(*THREE, "--json").out.encode(), Result)
    first = result.rollouts[0]
    mine = (result.verdict, result.reason, result.text, result.waves, result.exposed)
    assert mine == (first.verdict, first.reason, first.text, first.waves, first.exposed)
    assert (result.ended_s, result.curve) == (first.ended_s, first.curve)
    assert (first.person, result.person) == ("", result.rollouts[1].person)


def test_a_run_with_one_rollout_is_shown_as_before(edgefleet: CommandLine, tmp_path: Path) -> None:
    picture = tmp_path / "run.svg"
    ran = edgefleet("sim", "run", "--devices", "40", "--draw", str(picture))
    lines = ran.out.splitlines()
    assert lines[3].startswith("verdict      completed (completed)")
    assert not any(line.startswith("rollout ") for line in lines)
    assert "good: All waves passed." in picture.read_text()
    assert "digits" not in ran.err
