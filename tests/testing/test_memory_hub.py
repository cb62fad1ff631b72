"""A hub in memory gives a device the answers of the real hub, and keeps only what it stored."""

import pytest
from msgspec.structs import replace

from edgefleet.base.errors import OperatorError
from edgefleet.protocol.device import CheckIn, Outcome, OutcomeKind, Phase
from edgefleet.protocol.rollout import ExposureSpec, RolloutSpec, Verb
from edgefleet.protocol.version import PROTOCOL
from edgefleet.rollout.checkin import Answered, OutOfSequence
from edgefleet.testing import MemoryHub, fake_manifest

PLAN = RolloutSpec(model="digits", release="2", exposure=ExposureSpec(first=1))


def hub_with(devices: int) -> MemoryHub:
    hub = MemoryHub()
    for number in range(devices):
        assert hub.add_device(f"cam-{number}", labels={"site": "lyon"}) == number
    hub.add_release(fake_manifest("digits", "2", ("generic_x86",), now=hub.now))
    return hub


def check_in(hub: MemoryHub, row: int, seq: int, *outcomes: Outcome) -> Answered | OutOfSequence:
    sent = CheckIn(protocol=PROTOCOL, seq=seq, phase=Phase.IDLE, outcomes=outcomes)
    return hub.check_in(row, sent)


def start_of(rollout: str, row: int) -> Outcome:
    return Outcome(
        id=f"start-{row}", rollout=rollout, release="2", kind=OutcomeKind.TRIAL_STARTED, at=0.0
    )


def offered(hub: MemoryHub, row: int, seq: int) -> str | None:
    answer = check_in(hub, row, seq)
    assert isinstance(answer, Answered)
    return answer.offer and answer.offer.release


def test_a_device_is_offered_the_release_of_a_started_rollout() -> None:
    hub = hub_with(1)
    rollout = hub.plan(PLAN)
    assert offered(hub, 0, 1) is None
    hub.command(rollout, Verb.START)
    assert offered(hub, 0, 2) == "2"


def test_a_start_is_acknowledged_where_the_plan_has_a_place_and_counts_once() -> None:
    hub = hub_with(2)
    rollout = hub.start(replace(PLAN, waves=PLAN.waves[-1:]))
    first, second = (start_of(rollout, row) for row in (0, 1))
    assert check_in(hub, 0, 1, first).acked == (first.id,)
    assert check_in(hub, 1, 1, second).acked == ()
    assert check_in(hub, 0, 2, first).acked == (first.id,)
    assert [(stored.row, stored.outcome, stored.at) for stored in hub.outcomes] == [
        (0, first, hub.now)
    ]
    assert hub.view(rollout).exposed == 1


def test_a_number_that_was_sent_before_is_refused_with_the_next_one() -> None:
    hub = hub_with(1)
    check_in(hub, 0, 7)
    assert check_in(hub, 0, 7) == OutOfSequence(8)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_restart_keeps_what_is_stored_and_forgets_who_checked_in(reverse: bool) -> None:
    hub = hub_with(3)
    rollout = hub.start(replace(PLAN, waves=PLAN.waves[-1:]))
    check_in(hub, 0, 5, start_of(rollout, 0))
    hub.freeze(person="ann")
    hub.now += 60.0
    hub.restart(reverse=reverse)
    assert hub.view(rollout).exposed == 1
    assert [state.id for state in hub.states()] == [rollout]
    assert hub.engine.freeze.person == "ann"
    assert hub.engine.fleet.last_seen(0) is None
    assert isinstance(check_in(hub, 0, 1), Answered)


def test_a_recorded_outcome_needs_no_admission_and_is_new_once() -> None:
    hub = hub_with(2)
    rollout = hub.start(replace(PLAN, waves=PLAN.waves[-1:]))
    assert all(hub.record(row, start_of(rollout, row)) for row in (0, 1))
    assert not hub.record(1, start_of(rollout, 1))
    assert hub.view(rollout).exposed == 2


def test_a_command_for_an_older_generation_is_refused() -> None:
    hub = hub_with(1)
    rollout = hub.start(PLAN)
    generation = hub.view(rollout).generation
    hub.command(rollout, Verb.PAUSE, generation=generation)
    with pytest.raises(OperatorError) as caught:
        hub.command(rollout, Verb.RESUME, generation=generation)
    assert caught.value.code == "verb_not_now"
    assert [line.action for line in hub.audit] == ["start", "pause"]


def test_an_unknown_device_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="cam-9"):
        hub_with(1).why_device("cam-9")
