"""``rollout watch``: one line per change, and exit codes for scripts."""

from functools import partial

import pytest

from edgefleet.cli.exits import Exit
from edgefleet.client.watch import watch
from edgefleet.protocol.rollout import Status
from support.canned_hub import CannedHub
from support.command_line import CommandLine
from support.fake_reads import rollout_in

PATH = "/api/v1/rollouts/ro-1"


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgefleet.client.watch.watch", partial(watch, every_s=0.001))


def see(canned: CannedHub, *script: Status | int) -> None:
    views = [said if isinstance(said, int) else rollout_in(said) for said in script]
    canned.put("GET", PATH, *views)


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (Status.COMPLETED, Exit.DONE),
        (Status.REVERTED, Exit.FAILED),
        (Status.REFUSED, Exit.FAILED),
        (Status.HALTED, Exit.FAILED),
    ],
)
def test_it_ends_as_the_rollout_does(
    end: Status, code: Exit, fleet: CommandLine, canned: CannedHub
) -> None:
    see(canned, Status.PLANNED, Status.RUNNING, end)
    said = fleet("rollout", "watch", "ro-1", "--json")
    assert said.exit == code
    assert len(said.out.splitlines()) == 1
    assert said.json["status"] == end.value
    assert [line.split()[0] for line in said.err.splitlines()] == ["planned", "running", end.value]


def test_what_does_not_change_is_said_once(fleet: CommandLine, canned: CannedHub) -> None:
    see(canned, *[Status.RUNNING] * 5, Status.COMPLETED)
    assert len(fleet("rollout", "watch", "ro-1").err.splitlines()) == 2


def test_a_line_has_the_wave_its_bar_the_counts_and_the_why(
    fleet: CommandLine, canned: CannedHub
) -> None:
    see(canned, Status.RUNNING, Status.COMPLETED)
    line = fleet("rollout", "watch", "ro-1").err.splitlines()[0]
    view = rollout_in(Status.RUNNING)
    assert "wave 2 of 3 (10 %)" in line
    assert "[##############+++x.." in line
    assert "healthy 71, in trial 14, failed 1" in line
    assert view.why.line in line


def test_a_silent_hub_is_said_and_waited_for(fleet: CommandLine, canned: CannedHub) -> None:
    see(canned, Status.RUNNING, 502, 502, Status.COMPLETED)
    said = fleet("rollout", "watch", "ro-1")
    assert said.exit == Exit.DONE
    assert sum("No answer from the hub for" in line for line in said.err.splitlines()) == 1


def test_time_that_is_over_is_waiting_or_no_network(fleet: CommandLine, canned: CannedHub) -> None:
    see(canned, Status.RUNNING)
    assert fleet("rollout", "watch", "ro-1", "--timeout", "20ms").exit == Exit.WAITING
    see(canned, Status.RUNNING, 502)
    said = fleet("rollout", "watch", "ro-1", "--timeout", "2s", "--json")
    assert said.exit == Exit.NETWORK
    assert said.json["status"] == "running"


def test_ctrl_c_says_that_the_rollout_goes_on(
    fleet: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("edgefleet.client.watch.watch", interrupted)
    said = fleet("rollout", "watch", "ro-1")
    assert said.exit == Exit.INTERRUPTED
    assert "The rollout continues: edgefleet rollout watch ro-1" in said.err


def test_a_plan_can_be_followed_at_once(fleet: CommandLine, canned: CannedHub) -> None:
    canned.put("POST", "/api/v1/rollouts/ro-planned/start", rollout_in(Status.RUNNING))
    canned.put("GET", "/api/v1/rollouts/ro-running", rollout_in(Status.REVERTED))
    plan = ("rollout", "plan", "--model", "digits", "--release", "3")
    assert fleet(*plan, "--watch").exit == Exit.FAILED
