"""Agents of another protocol version. A device whose agent is too old is shown and gets nothing."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from edgefleet.protocol.device import OutcomeKind, Phase
from edgefleet.protocol.rollout import BudgetSpec, ExposureSpec, Status, Verb
from edgefleet.protocol.version import OLDEST, OLDEST_SERVED, PROTOCOL, is_served
from edgefleet.protocol.why import WaitCode
from support.toy_rollout import ToyShell, outcome, spec

TOO_OLD = OLDEST_SERVED - 1


def skewed(devices: int, *, too_old: int, **knobs: object) -> tuple[ToyShell, str]:
    """A rollout of release 1. The agents of the first ``too_old`` devices are too old."""
    shell = ToyShell(devices)
    for device in shell.devices[:too_old]:
        device.protocol = TOO_OLD
    for device in shell.devices:
        shell.exchange(device)
    shell.publish("1")
    return shell, shell.start(replace(spec("1", 100), **knobs))


@pytest.mark.parametrize("version", range(-1, PROTOCOL + 3))
def test_releases_go_to_protocol_2_and_newer(version: int):
    assert is_served(version) == (2 <= version <= PROTOCOL)
    assert OLDEST <= TOO_OLD, "an agent of the version before may still check in"


def test_an_agent_that_is_too_old_gets_no_offer_and_no_start():
    shell, rollout = skewed(2, too_old=1, exposure=ExposureSpec(first=1))
    assert shell.exchange(shell.devices[0]).offer is None
    assert shell.exchange(shell.devices[1]).offer is not None
    start = outcome(rollout, "1", OutcomeKind.TRIAL_STARTED, at=shell.now)
    answered = shell.exchange(shell.devices[0], start, phase=Phase.TRIAL, running="1")
    assert answered.acked == ()
    assert shell.view(rollout).exposed == 0
    assert shell.engine.admit(1, start, shell.now), "the refused start took no place"


def test_why_says_that_the_agent_is_too_old():
    shell, rollout = skewed(3, too_old=2)
    (wait,) = shell.engine.why_device(0, shell.now).waits
    assert wait.code is WaitCode.INELIGIBLE
    assert "speaks protocol 1" in wait.text
    assert "update the agent to get release 1" in wait.text
    waits = {wait.code: wait for wait in shell.engine.why_rollout(rollout, shell.now).waits}
    assert waits[WaitCode.INELIGIBLE].devices == 2
    assert "2 agent_too_old" in waits[WaitCode.INELIGIBLE].text
    assert shell.view(rollout).ineligible == {"agent_too_old": 2}


def test_a_rollout_does_not_wait_for_agents_that_are_too_old():
    shell, rollout = skewed(60, too_old=25, exposure=ExposureSpec(first=4))
    assert shell.run(rollout).status is Status.COMPLETED
    assert shell.on_release("1") == 35
    assert not any(device.running for device in shell.devices[:25])


def test_an_agent_that_was_updated_gets_the_release():
    shell, rollout = skewed(2, too_old=1)
    shell.devices[0].protocol = PROTOCOL
    assert shell.exchange(shell.devices[0]).offer is not None
    assert shell.run(rollout).status is Status.COMPLETED
    assert shell.on_release("1") == 2


@settings(max_examples=25)
@given(
    too_old=st.sets(st.integers(0, 23), max_size=23),
    first=st.integers(1, 4),
    budget=st.integers(0, 2),
    events=st.lists(
        st.tuples(st.sampled_from(["restart", "deaf", "away", "halt", "go"]), st.integers(0, 23)),
        max_size=30,
    ),
)
def test_no_more_really_run_it_unconfirmed_than_the_plan_allows(
    too_old: set[int], first: int, budget: int, events: list[tuple[str, int]]
):
    budgets = (BudgetSpec(label="site", max_in_trial=budget),) if budget else ()
    away: set[int] = set()
    shell = ToyShell(24)
    for device in shell.devices:
        device.protocol = TOO_OLD if device.row in too_old else PROTOCOL
        device.slow_s = device.row % 5
        device.away = lambda _now, row=device.row: row in away
    shell.publish("1")
    plan = replace(spec("1", 100), exposure=ExposureSpec(first=first), budgets=budgets)
    rollout = shell.start(plan)
    for what, row in [*events, ("go", 0)]:
        device = shell.devices[row]
        match what:
            case "restart":
                shell.restart(reverse=bool(row % 2))
            case "deaf":
                device.deaf = not device.deaf
            case "away":
                away ^= {row}
            case "halt":
                verbs = {Status.RUNNING: Verb.HALT, Status.HALTED: Verb.RESUME}
                if verb := verbs.get(shell.view(rollout).status):  # the rollout may have completed
                    shell.command(rollout, verb)
            case _:
                pass
        for _ in range(2):
            shell.tick()
            trying = [one for one in shell.devices if one.trial]
            confirmed = len(shell.rows_that(rollout, {OutcomeKind.CONFIRMED}))
            assert len(trying) <= max(first, confirmed)
            sites = Counter(f"s{one.row % 3}" for one in trying)
            assert not budget or max(sites.values(), default=0) <= budget
    away.clear()
    for device in shell.devices:
        device.deaf = False
    if shell.view(rollout).status is Status.HALTED:
        shell.command(rollout, Verb.RESUME)
    assert shell.run(rollout, at_most_s=600).status is Status.COMPLETED
    shell.settle(rollout, 60)  # the rollout may have completed while one of them was offline
    assert {device.row for device in shell.devices if device.running is None} == too_old
