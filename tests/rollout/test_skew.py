"""Agents of another protocol version. A device whose agent is too old is shown and gets nothing."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from edgefleet.protocol.device import CheckIn, Outcome, OutcomeKind, Phase
from edgefleet.protocol.rollout import BudgetSpec, ExposureSpec, Status, Verb
from edgefleet.protocol.version import OLDEST, OLDEST_SERVED, ONE_MODEL, PROTOCOL, is_served
from edgefleet.protocol.why import WaitCode
from edgefleet.rollout.checkin import Answered
from edgefleet.testing import FakeDevice
from support.fleets import CheckedFleet
from support.plans import MODEL, outcome, spec

TOO_OLD = OLDEST_SERVED - 1


def skewed(devices: int, *, too_old: int, **knobs: object) -> tuple[CheckedFleet, str]:
    """A rollout of release 1. The agents of the first ``too_old`` devices are too old."""
    fleet = CheckedFleet(devices)
    for device in fleet.by_row[:too_old]:
        device.protocol = TOO_OLD
    for device in fleet.by_row:
        exchange(fleet, device)
    fleet.publish("1")
    return fleet, fleet.start(replace(spec("1", 100), **knobs))


def exchange(
    fleet: CheckedFleet,
    device: FakeDevice,
    *outcomes: Outcome,
    phase: Phase = Phase.IDLE,
    running: str | None = None,
) -> Answered:
    """One check-in. The device does not follow the answer."""
    device.seq += 1
    model = MODEL if running else None
    sent = CheckIn(
        protocol=device.protocol, seq=device.seq, phase=phase, model=model, release=running,
        outcomes=outcomes,
    )  # fmt: skip
    answered = fleet.check_in(device.row, sent)
    assert isinstance(answered, Answered)
    return answered


@pytest.mark.parametrize("version", range(-1, PROTOCOL + 3))
def test_releases_go_to_protocol_2_and_newer(version: int):
    assert is_served(version) == (2 <= version <= PROTOCOL)
    assert OLDEST <= TOO_OLD, "an agent of the version before may still check in"


def test_an_agent_that_is_too_old_gets_no_offer_and_no_start():
    fleet, rollout = skewed(2, too_old=1, exposure=ExposureSpec(first=1))
    assert exchange(fleet, fleet.by_row[0]).offer is None
    assert exchange(fleet, fleet.by_row[1]).offer is not None
    start = outcome(rollout, "1", OutcomeKind.TRIAL_STARTED, at=fleet.now)
    answered = exchange(fleet, fleet.by_row[0], start, phase=Phase.TRIAL, running="1")
    assert answered.acked == ()
    assert fleet.view(rollout).exposed == 0
    assert fleet.engine.admission.admit(1, start, fleet.now), "the refused start took no place"


def test_why_says_that_the_agent_is_too_old():
    fleet, rollout = skewed(3, too_old=2)
    (wait,) = fleet.engine.why_device(0, fleet.now).waits
    assert wait.code is WaitCode.INELIGIBLE
    assert "speaks protocol 1" in wait.text
    assert "update the agent to get release 1" in wait.text
    waits = {wait.code: wait for wait in fleet.why(rollout).waits}
    assert waits[WaitCode.INELIGIBLE].devices == 2
    assert "2 agent_too_old" in waits[WaitCode.INELIGIBLE].text
    assert fleet.view(rollout).ineligible == {"agent_too_old": 2}


def test_a_rollout_does_not_wait_for_agents_that_are_too_old():
    fleet, rollout = skewed(60, too_old=25, exposure=ExposureSpec(first=4))
    assert fleet.finish(rollout).status is Status.COMPLETED
    assert fleet.on_release()["1"] == 35
    assert not any(device.running for device in fleet.by_row[:25])


def test_an_agent_that_was_updated_gets_the_release():
    fleet, rollout = skewed(2, too_old=1)
    fleet.by_row[0].protocol = ONE_MODEL
    assert exchange(fleet, fleet.by_row[0]).offer is not None
    assert fleet.finish(rollout).status is Status.COMPLETED
    assert fleet.on_release()["1"] == 2


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
    fleet = CheckedFleet(24)
    for device in fleet.by_row:
        device.protocol = TOO_OLD if device.row in too_old else ONE_MODEL
        device.fetch_s = device.row % 5
        device.offline = lambda _now, row=device.row: row in away
    fleet.publish("1")
    plan = replace(spec("1", 100), exposure=ExposureSpec(first=first), budgets=budgets)
    rollout = fleet.start(plan)
    for what, row in [*events, ("go", 0)]:
        device = fleet.by_row[row]
        match what:
            case "restart":
                fleet.restart(reverse=bool(row % 2))
            case "deaf":
                device.answers_lost = not device.answers_lost
            case "away":
                away ^= {row}
            case "halt":
                verbs = {Status.RUNNING: Verb.HALT, Status.HALTED: Verb.RESUME}
                if verb := verbs.get(fleet.view(rollout).status):  # the rollout may have completed
                    fleet.command(rollout, verb)
            case _:
                pass
        for _ in range(2):
            fleet.tick(1)
            trying = [one for one in fleet.by_row if one.trial]
            confirmed = len(fleet.invariants.rows_that(rollout, {OutcomeKind.CONFIRMED}))
            assert len(trying) <= max(first, confirmed)
            sites = Counter(f"s{one.row % 3}" for one in trying)
            assert not budget or max(sites.values(), default=0) <= budget
    away.clear()
    for device in fleet.by_row:
        device.answers_lost = False
    if fleet.view(rollout).status is Status.HALTED:
        fleet.command(rollout, Verb.RESUME)
    assert fleet.finish(rollout, at_most_s=600).status is Status.COMPLETED
    fleet.settle(rollout, 60)  # the rollout may have completed while one of them was offline
    assert {device.row for device in fleet.by_row if device.running is None} == too_old
