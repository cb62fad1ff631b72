"""Starts obey the limits of the plan exactly: exposure, pace, budgets, approval, freeze, time."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from edgefleet.base.errors import OperatorError
from edgefleet.protocol.device import Outcome, OutcomeKind, Phase
from edgefleet.protocol.rollout import (
    ApprovalSpec,
    BudgetSpec,
    ExposureSpec,
    PaceSpec,
    RolloutSpec,
    Status,
    Verb,
    WindowSpec,
)
from edgefleet.protocol.why import WaitCode
from edgefleet.rollout.constraints.label_budget import Budgets
from edgefleet.rollout.constraints.pace import StartRate, TokenBucket
from edgefleet.rollout.constraints.reservations import Reservations
from edgefleet.testing import MemoryHub
from support.fleets import CheckedFleet, memory_hub, new_device
from support.plans import MODEL, outcome, spec

STARTED, CONFIRMED = OutcomeKind.TRIAL_STARTED, OutcomeKind.CONFIRMED


def rolling(devices: int = 60, **knobs: object) -> tuple[MemoryHub, str]:
    """A rollout of release 1 to all devices. The test makes each step of the devices."""
    hub = memory_hub(devices, "1")
    wanted = replace(spec("1", 100), **knobs)
    return hub, hub.start(wanted)


def ask(hub: MemoryHub, row: int, rollout: str) -> bool:
    """Ask to start. An admitted start is recorded."""
    start = outcome(rollout, "1", STARTED, at=hub.now)
    if not hub.engine.admission.admit(row, start, hub.now):
        return False
    hub.record(row, replace(start, id=f"{row}-start"))
    return True


def confirm(hub: MemoryHub, row: int, rollout: str) -> None:
    hub.record(row, replace(outcome(rollout, "1", CONFIRMED, at=hub.now), id=f"{row}-well"))


def codes(hub: MemoryHub, rollout: str) -> set[WaitCode]:
    for row in range(len(hub.engine.fleet)):
        if hub.engine.fleet.last_seen(row) is None:
            hub.engine.fleet.observe(row, hub.now, model=None, release=None, phase=Phase.IDLE)
    return {wait.code for wait in hub.why(rollout).waits}


def test_exposure_grows_with_confirmations_and_is_in_why():
    hub, rollout = rolling(exposure=ExposureSpec(first=3, growth=1.0, ceiling=1.0))
    assert [ask(hub, row, rollout) for row in range(5)] == [True] * 3 + [False] * 2
    assert WaitCode.EXPOSURE in codes(hub, rollout)
    assert hub.engine.why_device(4, hub.now).waits[-1].code is WaitCode.EXPOSURE
    for row in range(3):
        confirm(hub, row, rollout)
    assert sum(ask(hub, row, rollout) for row in range(3, 60)) == 3
    for row in range(3, 6):
        confirm(hub, row, rollout)
    assert sum(ask(hub, row, rollout) for row in range(6, 60)) == 6
    assert hub.view(rollout).allowed == 6


def test_a_reserved_place_counts_until_it_is_freed():
    hub, rollout = rolling(exposure=ExposureSpec(first=1))
    start = outcome(rollout, "1", STARTED)
    assert hub.engine.admission.admit(0, start, hub.now)
    assert hub.engine.admission.admit(0, start, hub.now), "a second request keeps the same place"
    assert not hub.engine.admission.admit(1, start, hub.now)
    hub.engine.admission.free(0, start)
    assert not hub.engine.admission.admit(1, start, hub.now), (
        "the first request still keeps the place"
    )
    hub.engine.admission.free(0, start)
    assert hub.engine.admission.admit(1, start, hub.now)


def test_a_device_without_an_offer_is_not_admitted():
    hub, rollout = rolling()
    start = outcome(rollout, "1", STARTED)
    assert not hub.engine.admission.admit(0, replace(start, rollout="ro-unknown"), hub.now)
    assert not hub.engine.admission.admit(0, replace(start, release="9"), hub.now)
    hub.command(rollout, Verb.PAUSE)
    assert not hub.engine.admission.admit(0, start, hub.now)
    hub.command(rollout, Verb.RESUME)
    assert hub.engine.admission.admit(0, start, hub.now)


@settings(max_examples=80)
@given(
    most=st.integers(1, 8),
    # In steps of 1/64 s, so that a minute later is an exact float.
    steps=st.lists(
        st.tuples(st.integers(0, 40 * 64).map(lambda count: count / 64), st.booleans()),
        min_size=1,
        max_size=120,
    ),
)
def test_no_minute_has_more_starts_than_the_pace(most: int, steps: list[tuple[float, bool]]):
    starts, now, begun = StartRate(most), 1000.0, []
    for later, given_back in steps:
        now += later
        until = starts.wait_until(now)
        assert (until is None) == (sum(at > now - 60 for at in begun) < most)
        if until is None:
            starts.add(now)
            if given_back:
                starts.remove(now)
            else:
                begun.append(now)
        else:
            assert now < until <= now + 60
    for at in begun:
        assert sum(at - 60 < other <= at for other in begun) <= most


def test_the_pace_is_kept_over_a_restart():
    hub, rollout = rolling(pace=PaceSpec(starts_per_minute=4))
    assert sum(ask(hub, row, rollout) for row in range(60)) == 4
    hub.now += 59
    hub.restart()
    assert sum(ask(hub, row, rollout) for row in range(4, 60)) == 0
    assert WaitCode.PACE in codes(hub, rollout)
    hub.now += 1
    assert sum(ask(hub, row, rollout) for row in range(4, 60)) == 4


@settings(max_examples=60)
@given(
    st.integers(1, 1000),
    st.lists(st.tuples(st.floats(0, 30), st.integers(1, 5000)), min_size=1, max_size=80),
)
def test_a_bucket_lets_no_more_through_than_flowed_in(per_s: int, steps: list[tuple[float, int]]):
    bucket, now, sent, largest = TokenBucket(per_s), 0.0, 0, 0
    for later, size in steps:
        now += later
        if bucket.ready_at(size, now) <= now:
            bucket.consume(size, now)
            sent += size
            largest = max(largest, size)
        assert sent <= per_s * (now + TokenBucket.HOLDS_S) + largest + 1e-6


def test_bytes_bound_how_many_are_offered_at_once_and_those_that_fetch_go_on():
    # One release is 2 bytes here: model and golden set of one byte each.
    hub, rollout = rolling(40, pace=PaceSpec(bytes_per_s=1))
    offered = [row for row in range(40) if hub.engine.admission.offers(row, hub.now)]
    assert len(offered) == 5, "ten seconds' worth"
    assert all(hub.engine.admission.offers(row, hub.now) for row in offered)
    assert WaitCode.PACE in codes(hub, rollout)
    hub.now += 2
    assert sum(hub.engine.admission.offers(row, hub.now) != () for row in range(40)) == 6


def test_bytes_of_each_site_flow_by_themselves():
    hub, _ = rolling(30, pace=PaceSpec(bytes_per_s_per_site=1))
    offered = [row for row in range(30) if hub.engine.admission.offers(row, hub.now)]
    by_site = Counter(hub.engine.fleet.labels(row)["site"] for row in offered)
    assert set(by_site.values()) == {5}
    assert len(by_site) == 3


def test_a_budget_limits_each_value_of_its_label_and_is_in_why():
    hub, rollout = rolling(budgets=(BudgetSpec(label="site", max_in_trial=2),))
    begun = [row for row in range(60) if ask(hub, row, rollout)]
    assert Counter(row % 3 for row in begun) == {0: 2, 1: 2, 2: 2}
    assert WaitCode.BUDGET in codes(hub, rollout)
    confirm(hub, begun[0], rollout)
    after = [row for row in range(60) if row not in begun and ask(hub, row, rollout)]
    assert [row % 3 for row in after] == [begun[0] % 3]


def test_a_device_without_the_label_is_in_no_budget():
    hub = memory_hub(3, "1")
    for number in range(5):
        hub.add_device(f"bare{number}")
    rollout = hub.start(replace(spec("1", 100), budgets=(BudgetSpec(label="site"),)))
    assert sum(ask(hub, row, rollout) for row in range(8)) == 8


def test_budgets_are_counted_again_after_a_restart():
    hub, rollout = rolling(budgets=(BudgetSpec(label="site"),))
    begun = [row for row in range(60) if ask(hub, row, rollout)]
    assert len(begun) == 3
    for reverse in (False, True):
        hub.restart(reverse=reverse)
        assert not any(ask(hub, row, rollout) for row in range(60) if row not in begun)


def test_a_budget_that_leaks_is_caught(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Budgets, "begin", lambda *_: None)
    with pytest.raises(AssertionError):
        test_a_budget_limits_each_value_of_its_label_and_is_in_why()


def test_a_reservation_that_is_forgotten_is_caught(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Reservations, "reserve", lambda *_, **__: None)
    with pytest.raises(AssertionError):
        test_a_reserved_place_counts_until_it_is_freed()


def test_two_people_approve_each_wave_before_its_devices_begin():
    hub = memory_hub(60, "1")
    wanted = replace(spec("1", 50, 100), approval=ApprovalSpec(people=2, each_wave=True))
    rollout = hub.start(wanted)
    assert not any(ask(hub, row, rollout) for row in range(60))
    wait = hub.why(rollout).waits[0]
    assert (wait.code, "2 more" in wait.text) == (WaitCode.APPROVAL, True)
    for person in ("ada", "bob"):
        hub.approve(rollout, person)
    assert sum(ask(hub, row, rollout) for row in range(60)) == 30
    hub.command(rollout, Verb.ADVANCE)
    inside = [row for row in range(60) if hub.engine.rollout(rollout).position(row).wave == 1]
    assert inside
    assert not any(ask(hub, row, rollout) for row in inside)
    assert hub.why(rollout).waits[0].code is WaitCode.APPROVAL
    hub.approve(rollout, "ada")
    with pytest.raises(OperatorError) as caught:
        hub.engine.approve(rollout, "ada", now=hub.now)
    assert caught.value.code == "approved_already"
    hub.restart()
    hub.approve(rollout, "bob")
    with pytest.raises(OperatorError) as caught:
        hub.engine.approve(rollout, "eve", now=hub.now)
    assert caught.value.code == "verb_not_now"


def test_a_frozen_fleet_is_offered_nothing_but_the_way_back():
    fleet = CheckedFleet(30)
    fleet.publish("1")
    fleet.finish(fleet.start(spec("1", 100)))
    fleet.publish("2")
    rollout = fleet.start(spec("2", 100, gate=replace(spec("2").gate, confirm_after_s=50)))
    fleet.settle(rollout, 2)
    assert fleet.on_release()["2"] == 30
    fleet.freeze(person="ada")
    newcomer = fleet.enrol(new_device("newcomer", site="s0"))
    assert fleet.engine.admission.offers(newcomer.row, fleet.now) == ()
    assert fleet.engine.why_device(newcomer.row, fleet.now).waits[-1].code is WaitCode.FREEZE
    fleet.command(rollout, Verb.REVERT)
    fleet.settle(rollout, 60)
    assert (fleet.view(rollout).status, fleet.on_release()["1"]) == (Status.REVERTED, 30)


def test_a_plan_starts_by_itself_at_its_time_and_says_when():
    fleet = CheckedFleet(20)
    fleet.publish("1")
    rollout = fleet.plan(replace(spec("1", 100), start_at=fleet.now + 10))
    wait = fleet.why(rollout).waits[0]
    assert (wait.code, wait.until) == (WaitCode.SCHEDULED, fleet.now + 10)
    assert fleet.settle(rollout, 9).status is Status.PLANNED
    assert fleet.settle(rollout, 1).status is Status.RUNNING


def test_patience_does_not_run_while_no_window_is_open():
    fleet = CheckedFleet(20)
    fleet.publish("1")
    day = 86_400.0
    fleet.jump((fleet.now // day) * day + 3600.0 - fleet.now)  # one hour after midnight
    wanted = replace(spec("1", 100), windows=(WindowSpec(start="02:00", end="03:00"),))
    rollout = fleet.start(wanted)
    view = fleet.settle(rollout, 60)  # three times the patience of this gate
    assert (view.exposed, view.status) == (0, Status.RUNNING)
    assert view.why.waits[0].code is WaitCode.WINDOW
    assert view.why.waits[0].until == (fleet.now // day) * day + 2 * 3600
    fleet.jump((fleet.now // day) * day + 2 * 3600 - 1 - fleet.now)
    assert fleet.finish(rollout).exposed == 20


@pytest.mark.parametrize(
    ("knobs", "code", "field"),
    [
        ({"exposure": ExposureSpec(first=0)}, "exposure_invalid", "exposure.first"),
        ({"exposure": ExposureSpec(growth=-1)}, "exposure_invalid", "exposure.growth"),
        ({"exposure": ExposureSpec(ceiling=1.5)}, "exposure_invalid", "exposure.ceiling"),
        ({"pace": PaceSpec(bytes_per_s=-1)}, "pace_invalid", "pace.bytes_per_s"),
        ({"budgets": (BudgetSpec(label="no"),)}, "selector_key_unknown", "budgets[0].label"),
        (
            {"budgets": (BudgetSpec(label="site", max_in_trial=0),)},
            "budget_invalid",
            "budgets[0].max_in_trial",
        ),
        ({"approval": ApprovalSpec(people=3)}, "approval_invalid", "approval.people"),
    ],
)
def test_a_bad_knob_is_refused_with_its_field(knobs: dict[str, object], code: str, field: str):
    hub = memory_hub(3, "1")
    wanted: RolloutSpec = replace(spec("1"), **knobs)
    with pytest.raises(OperatorError) as caught:
        hub.plan(wanted)
    assert (caught.value.code, caught.value.field) == (code, field)


def test_about_twice_as_many_as_may_start_are_offered_lowest_positions_first():
    fleet = CheckedFleet(400)
    fleet.publish("1")
    rollout = fleet.start(spec("1", 100, exposure=ExposureSpec(first=10)))
    fleet.tick(1)
    active = fleet.engine.rollout(rollout)
    fleet.evaluate()
    waiting = [d.row for d in fleet.by_row if d.running is None]
    offered = [row for row in waiting if fleet.engine.admission.offers(row, fleet.now)]
    assert 0 < len(offered) <= 60
    worst = max(active.scope.position(row) for row in offered)
    others = [row for row in waiting if row not in offered]
    assert worst < min(active.scope.position(row) for row in others)


def offered_after(fleet: CheckedFleet, seconds: int) -> int:
    """Number of devices with an offer at this time, of those that have not begun."""
    for _ in range(seconds):
        fleet.tick(1)
    waiting = [device.row for device in fleet.by_row if device.running is None]
    return sum(fleet.engine.admission.offers(row, fleet.now) != () for row in waiting)


@pytest.mark.parametrize("timezone", ["UTC", "device"])
def test_no_more_are_asked_ahead_however_long_a_window_is_shut(timezone: str):
    fleet = CheckedFleet(400)
    fleet.publish("1")
    fleet.jump((fleet.now // 86_400) * 86_400 + 3600.0 - fleet.now)
    night = WindowSpec(start="02:00", end="03:00", timezone=timezone)
    fleet.start(replace(spec("1", 100), exposure=ExposureSpec(first=10), windows=(night,)))
    assert 10 <= offered_after(fleet, 400) <= 60


def test_no_more_are_asked_ahead_than_budgets_have_places_for():
    fleet = CheckedFleet(400)
    fleet.publish("1")
    sites = BudgetSpec(label="site", max_in_trial=2)
    wanted = replace(spec("1", 100), exposure=ExposureSpec(first=200), budgets=(sites,))
    rollout = fleet.start(wanted)
    assert 6 <= offered_after(fleet, 20) <= 60
    assert fleet.finish(rollout, at_most_s=2000).status is Status.COMPLETED


def test_a_budget_of_a_label_that_some_lack_does_not_bound_the_candidates():
    hub = memory_hub(6)
    budgets, specs = Budgets(), (BudgetSpec(label="site", max_in_trial=2),)
    assert budgets.places(specs, hub.engine.fleet) == 6
    hub.add_device("bare")
    assert budgets.places(specs, hub.engine.fleet) is None


def test_devices_that_never_begin_do_not_keep_the_others_from_it():
    fleet = CheckedFleet(200)
    fleet.publish("1")
    wanted = replace(spec("1", 100), exposure=ExposureSpec(first=5))
    rollout = fleet.start(wanted)
    active = fleet.engine.rollout(rollout)
    lowest = sorted(range(200), key=active.scope.position)[:40]
    for row in lowest:
        fleet.by_row[row].fetch_s = 1e9  # the downloads never end
    for _ in range(400):
        fleet.tick(1)
        if fleet.on_release()["1"] >= 160:
            break
    assert fleet.on_release()["1"] >= 160


def test_the_newest_exposed_are_the_first_to_go_back():
    hub, rollout = rolling(5)
    order = [3, 0, 4, 1]
    for row in order:
        assert ask(hub, row, rollout)
        hub.now += 1.0
    rows = np.arange(5)
    assert hub.engine.rollout(rollout).ledger.newest_first(rows).tolist() == [1, 4, 0, 3, 2]


def send(hub: MemoryHub, rollout: str, kind: OutcomeKind, attempt: int) -> bool:
    sent = replace(outcome(rollout, "1", kind, at=hub.now), id=f"{attempt}/{kind}")
    sent = replace(sent, attempt=attempt)
    if kind is STARTED and not hub.engine.admission.admit(0, sent, hub.now):
        return False
    hub.record(0, sent)
    return True


def test_a_withdrawn_start_frees_its_place_and_the_release_stays_wanted():
    hub, rollout = rolling(5, exposure=ExposureSpec(first=1))
    assert send(hub, rollout, STARTED, 4)
    assert not ask(hub, 1, rollout)
    assert send(hub, rollout, OutcomeKind.WITHDRAWN, 4)
    assert hub.engine.desired(0, MODEL) == "1", (
        "the device did not run the release, so it is offered again"
    )
    assert hub.engine.view(rollout, hub.now).exposed == 0
    assert ask(hub, 1, rollout)
    assert not send(hub, rollout, STARTED, 5), "the next start needs a new place"


def test_a_withdrawn_start_gives_its_budget_back():
    hub, rollout = rolling(5, budgets=(BudgetSpec(label="site", max_in_trial=1),))
    for attempt in (4, 5, 6):
        assert send(hub, rollout, STARTED, attempt)
        assert send(hub, rollout, OutcomeKind.WITHDRAWN, attempt)


def test_a_reported_start_of_another_release_takes_no_place():
    hub, rollout = rolling(5, exposure=ExposureSpec(first=1))
    sent = Outcome(id="x", rollout=rollout, release="9", kind=STARTED, at=hub.now)
    assert not hub.engine.intake.record(0, sent, hub.now)
    assert ask(hub, 1, rollout)
