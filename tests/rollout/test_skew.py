"""Agents of the previous protocol version start without asking: their offer is the grant."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from edgefleet.protocol.device import OutcomeKind, Phase
from edgefleet.protocol.rollout import (
    ApprovalSpec,
    BudgetSpec,
    ExposureSpec,
    Freeze,
    PaceSpec,
    Status,
    Verb,
    WindowSpec,
)
from edgefleet.protocol.version import PREVIOUS, PROTOCOL, is_served, starts_by_itself
from edgefleet.protocol.why import WaitCode
from edgefleet.rollout.limits import PUT_OFF_S
from support.toy_rollout import Behaviour, ToyShell, outcome, spec

STARTED, OFFERED = OutcomeKind.TRIAL_STARTED, OutcomeKind.OFFERED


def skewed(devices: int, *, previous: int | None = None, **knobs: object) -> tuple[ToyShell, str]:
    """A rollout of release 1. The first ``previous`` devices (default: all) have old agents."""
    shell = ToyShell(devices)
    for device in shell.devices[: devices if previous is None else previous]:
        device.protocol = PREVIOUS
    shell.publish("1")
    return shell, shell.start(replace(spec("1", 100), **knobs))


def check_in(
    shell: ToyShell, row: int, phase: Phase = Phase.IDLE, running: str | None = None
) -> bool:
    """A check-in without reports. Returns True if the answer has an offer."""
    answered = shell.exchange(shell.devices[row], phase=phase, running=running)
    return answered.offer is not None


def report(shell: ToyShell, row: int, rollout: str, kind: OutcomeKind) -> None:
    sent = replace(outcome(rollout, "1", kind, at=shell.now), id=f"{row}-{kind}-{shell.now}")
    if kind is STARTED:
        assert shell.engine.admit(row, sent, shell.now), (
            "an agent that starts without asking is never refused"
        )
    shell.store(row, sent)


def offered(shell: ToyShell, rows: range) -> list[int]:
    return [row for row in rows if check_in(shell, row)]


@pytest.mark.parametrize("version", range(-1, PROTOCOL + 3))
def test_this_version_and_the_one_before_are_served(version: int):
    assert is_served(version) == (version in (PREVIOUS, PROTOCOL))
    assert starts_by_itself(version) == (version == 1)


def test_an_offer_takes_a_place_until_the_device_says_how_it_went():
    shell, rollout = skewed(8, exposure=ExposureSpec(first=3))
    assert offered(shell, range(8)) == [0, 1, 2]
    shell.now += 1e6
    assert offered(shell, range(3, 8)) == [], "a device without a further check-in keeps its place"
    report(shell, 0, rollout, OutcomeKind.REFUSED)
    report(shell, 1, rollout, STARTED)
    assert len(offered(shell, range(3, 8))) == 1, "a refusal frees the place, a start does not"
    report(shell, 1, rollout, OutcomeKind.CONFIRMED)
    assert len(offered(shell, range(4, 8))) == 1


def test_an_engine_that_is_not_asked_for_the_grant_offers_nothing():
    shell, _ = skewed(1)
    shell.engine.fleet.set_protocol(0, PREVIOUS)
    assert shell.engine.answer(0, shell.now) is None


def test_an_offer_that_was_not_stored_is_not_made_and_takes_no_place():
    shell, _ = skewed(2, exposure=ExposureSpec(first=1))
    shell.engine.fleet.set_protocol(0, PREVIOUS)
    granted = shell.engine.grant(0, shell.now)
    assert granted is not None
    assert granted.kind is OFFERED
    assert shell.engine.answer(0, shell.now) is None
    assert offered(shell, range(1, 2)) == [], "the place is reserved"
    shell.engine.release(0, granted)
    assert offered(shell, range(1, 2)) == [1]


def test_a_budget_holds_for_both_versions_together():
    budget = BudgetSpec(label="site", max_in_trial=1)
    shell, rollout = skewed(8, previous=5, budgets=(budget,))
    assert offered(shell, range(8)) == [0, 1, 2, 5, 6, 7], (
        "an offer to an agent that asks is not a grant"
    )
    assert not shell.engine.admit(6, outcome(rollout, "1", STARTED), shell.now)
    report(shell, 0, rollout, OutcomeKind.REFUSED)
    assert shell.engine.admit(6, outcome(rollout, "1", STARTED), shell.now)
    assert not check_in(shell, 3)


def test_the_pace_counts_offers_over_a_restart_too():
    shell, _ = skewed(8, pace=PaceSpec(starts_per_minute=4))
    assert len(offered(shell, range(8))) == 4
    shell.now += 59
    shell.restart()
    assert offered(shell, range(4, 8)) == []
    shell.now += 1
    assert len(offered(shell, range(4, 8))) == 4


def test_a_closed_window_takes_the_offer_away_and_its_place_once_the_device_is_idle():
    # The toy clock starts at 22:13:20 UTC.
    window = WindowSpec(start="22:00", end="23:00", timezone="UTC")
    shell, _ = skewed(3, exposure=ExposureSpec(first=1), windows=(window,))
    assert offered(shell, range(3)) == [0]
    shell.now += 3600
    assert not check_in(shell, 0, Phase.FETCHING)
    assert shell.engine.admit(0, outcome("ro-1", "1", STARTED), shell.now), "the answer was lost"
    shell.now += 23 * 3600
    assert offered(shell, range(1, 3)) == [], "the device may begin until it checks in idle"
    assert check_in(shell, 0, Phase.FETCHING), "the device keeps its grant"
    shell.now += 3600
    assert not check_in(shell, 0)
    shell.now += 23 * 3600
    assert offered(shell, range(1, 3)) == [1]


def test_freeze_approval_and_pause_are_doors():
    shell, rollout = skewed(3, approval=ApprovalSpec(people=1))
    assert offered(shell, range(3)) == []
    shell.commit(shell.engine.approve(rollout, "ada", now=shell.now))
    assert check_in(shell, 0)
    shell.engine.set_freeze(Freeze(frozen=True, person="ada", since=shell.now))
    assert offered(shell, range(3)) == []
    shell.engine.set_freeze(Freeze(frozen=False))
    assert check_in(shell, 1)
    shell.command(rollout, Verb.PAUSE)
    assert offered(shell, range(3)) == []


def test_an_answer_that_was_lost_costs_nothing():
    shell, _ = skewed(3, exposure=ExposureSpec(first=1), pace=PaceSpec(starts_per_minute=1))
    assert check_in(shell, 0)
    assert check_in(shell, 0), "an idle device gets the offer again with the same grant"
    assert offered(shell, range(1, 3)) == []


def test_a_grant_is_there_again_after_a_restart_and_a_start_uses_it():
    shell, rollout = skewed(4, exposure=ExposureSpec(first=2))
    assert offered(shell, range(4)) == [0, 1]
    report(shell, 0, rollout, STARTED)
    for reverse in (False, True):
        shell.restart(reverse=reverse)
        assert offered(shell, range(2, 4)) == []
        assert check_in(shell, 1, Phase.FETCHING), "the device keeps its grant"
    report(shell, 0, rollout, OutcomeKind.CONFIRMED)
    assert offered(shell, range(2, 4)) == [2]


@pytest.mark.parametrize(
    "knobs",
    [
        {"exposure": ExposureSpec(first=1)},
        {"budgets": (BudgetSpec(label="site", max_in_trial=1),)},
        {"pace": PaceSpec(starts_per_minute=1)},
    ],
    ids=["exposure", "budget", "pace"],
)
@pytest.mark.parametrize("reverse", [False, True])
def test_a_cancelled_grant_is_not_counted_twice_after_a_restart(
    knobs: dict[str, object], reverse: bool
):
    shell, rollout = skewed(4, **knobs)
    assert check_in(shell, 0)
    shell.command(rollout, Verb.PAUSE)
    shell.now += 1
    assert not check_in(shell, 0), "an idle check-in cancels the grant"
    shell.command(rollout, Verb.RESUME)
    assert check_in(shell, 3), "another device of the site gets the place"
    shell.restart(reverse=reverse)
    assert not check_in(shell, 0)
    assert check_in(shell, 3, Phase.FETCHING), "the device keeps its grant"
    assert not check_in(shell, 0)


def test_a_device_that_is_idle_after_a_restart_gets_a_new_grant():
    shell, _ = skewed(2, exposure=ExposureSpec(first=1))
    assert check_in(shell, 0)
    shell.now += 1
    shell.restart()
    assert check_in(shell, 0), "the place of the device is free"
    assert not check_in(shell, 1)
    *_, granted = shell.stored_outcomes.values()
    assert (granted.kind, granted.at) == (OFFERED, shell.now), "the new grant is recorded"


def test_a_start_without_an_offer_is_counted_and_blocks_others():
    shell, rollout = skewed(4, exposure=ExposureSpec(first=1))
    assert check_in(shell, 0)
    shell.engine.fleet.set_protocol(3, PREVIOUS)
    report(shell, 3, rollout, STARTED)
    view = shell.view(rollout)
    assert (view.exposed, view.evidence.in_trial, view.allowed) == (1, 1, 1)
    report(shell, 0, rollout, OutcomeKind.REFUSED)
    assert offered(shell, range(1, 3)) == []


def test_a_deferred_grant_frees_its_place_for_a_while():
    shell, rollout = skewed(2, exposure=ExposureSpec(first=1))
    assert check_in(shell, 0)
    report(shell, 0, rollout, OutcomeKind.DEFERRED)
    assert not check_in(shell, 0, Phase.FETCHING), "the device gets no offer for a while"
    assert not check_in(shell, 1), "row 0 keeps its place: the answer may be lost"
    assert not check_in(shell, 0)
    assert check_in(shell, 1)
    report(shell, 1, rollout, STARTED)
    report(shell, 1, rollout, OutcomeKind.CONFIRMED)
    assert not check_in(shell, 0)
    shell.now += PUT_OFF_S
    assert check_in(shell, 0)


def test_one_grant_at_a_time_whatever_the_rollout():
    shell, first = skewed(1)
    assert check_in(shell, 0)
    shell.command(first, Verb.HALT)
    shell.publish("2")
    second = shell.start(spec("2", 100))
    assert not check_in(shell, 0, Phase.FETCHING), "the device may still begin the first release"
    shell.now += 1
    assert check_in(shell, 0)
    offer = shell.engine.answer(0, shell.now)
    assert offer is not None
    assert offer.rollout == second
    for reverse in (False, True):
        shell.restart(reverse=reverse)
        assert check_in(shell, 0, Phase.FETCHING)


def test_an_agent_that_became_new_meanwhile_asks_and_starts_on_its_grant():
    shell, rollout = skewed(2, exposure=ExposureSpec(first=1))
    assert check_in(shell, 0)
    shell.devices[0].protocol = PROTOCOL
    assert check_in(shell, 0, Phase.STAGED)
    assert shell.engine.admit(0, outcome(rollout, "1", STARTED), shell.now)


def test_why_says_that_the_offer_is_the_grant():
    shell, rollout = skewed(3, exposure=ExposureSpec(first=1))
    assert offered(shell, range(3)) == [0]
    wait = shell.engine.why_device(1, shell.now).waits[-1]
    assert wait.code is WaitCode.EXPOSURE
    assert "speaks the previous protocol" in wait.text
    assert "granted with the offer" in wait.text
    waits = {wait.code: wait.text for wait in shell.engine.why_rollout(rollout, shell.now).waits}
    assert "1 of these with a grant" in waits[WaitCode.EXPOSURE]


def test_a_fleet_of_both_versions_completes():
    shell, rollout = skewed(60, previous=25, exposure=ExposureSpec(first=4))
    for device in shell.devices[::3]:
        device.slow_s = 3
    assert shell.run(rollout).status is Status.COMPLETED
    assert shell.on_release("1") == 60


def test_a_bad_release_is_reverted_on_both_versions():
    shell = ToyShell(80)
    for device in shell.devices[:40]:
        device.protocol = PREVIOUS
        device.slow_s = device.row % 4
    shell.publish("1")
    assert shell.run(shell.start(spec("1", 100))).status is Status.COMPLETED
    shell.publish("2", lambda d: Behaviour.FAILS_TRIAL if d.row % 2 else Behaviour.GOOD)
    view = shell.run(shell.start(spec("2", 100, exposure=ExposureSpec(first=10))))
    assert view.status is Status.REVERTED
    assert shell.on_release("2") == 0
    assert {shell.devices[row].protocol for row in shell.rows_that(view.id, {STARTED})} == {1, 2}


@settings(max_examples=25)
@given(
    previous=st.sets(st.integers(0, 23)),
    first=st.integers(1, 4),
    budget=st.integers(0, 2),
    events=st.lists(
        st.tuples(st.sampled_from(["restart", "deaf", "away", "halt", "go"]), st.integers(0, 23)),
        max_size=30,
    ),
)
def test_no_more_really_run_it_unconfirmed_than_the_plan_allows(
    previous: set[int], first: int, budget: int, events: list[tuple[str, int]]
):
    budgets = (BudgetSpec(label="site", max_in_trial=budget),) if budget else ()
    away: set[int] = set()
    shell = ToyShell(24)
    for device in shell.devices:
        device.protocol = PREVIOUS if device.row in previous else PROTOCOL
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
    assert shell.on_release("1") == 24
