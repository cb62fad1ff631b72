"""Blame for the end of the shared process, by the models that ran in it, and its report."""

from edgefleet.agent import limits
from edgefleet.agent.event import CheckInAnswered, CheckInFailed, ServingProbed, TimerFired
from edgefleet.agent.isolation import record
from edgefleet.agent.narration import narrate
from edgefleet.agent.state import Crashes
from edgefleet.base.limits import MODELS_PER_DEVICE
from edgefleet.protocol.device import CheckIn, CheckInAnswer, IsolationReason, isolation_text
from edgefleet.protocol.wire import encode
from support.agent_world import Device

TWICE = IsolationReason.CRASHED_TWICE
WITH_OTHERS = IsolationReason.RAN_IN_CRASH


def isolated(crashes: Crashes) -> dict[str, str]:
    return {one.model: one.reason for one in crashes.isolated}


def test_one_model_gets_a_worker_at_its_second_crash_within_an_hour() -> None:
    once = record(Crashes(), ("a",), 0.0)
    assert once.isolated == ()
    assert isolated(record(once, ("a",), limits.CRASHES_WITHIN_S - 1)) == {"a": TWICE}
    later = record(once, ("a",), limits.CRASHES_WITHIN_S + 1)
    assert later.isolated == ()
    assert isolated(record(later, ("a",), limits.CRASHES_WITHIN_S + 2)) == {"a": TWICE}
    assert record(once, ("b",), 1.0).isolated == ()


def test_several_models_are_not_blamed_and_each_gets_a_worker() -> None:
    crashes = record(Crashes(), ("b", "a"), 0.0)
    assert (crashes.last, list(isolated(crashes))) == ((), ["a", "b"])
    assert set(isolated(crashes).values()) == {WITH_OTHERS}


def test_the_first_reason_stays() -> None:
    crashes = record(record(Crashes(), ("a",), 0.0), ("a",), 1.0)
    assert isolated(record(crashes, ("a", "b"), 2.0)) == {"a": TWICE, "b": WITH_OTHERS}


def test_a_report_has_room_for_each_model_of_a_device() -> None:
    many = tuple(f"model-{number:02}" for number in range(MODELS_PER_DEVICE + 3))
    assert len(record(Crashes(), many, 0.0).isolated) == MODELS_PER_DEVICE


def test_without_a_running_model_none_is_blamed() -> None:
    once = record(Crashes(), ("a",), 0.0)
    assert record(once, (), 1.0) is once


# The report to the hub.


def idle() -> Device:
    """A device whose facts the hub knows."""
    device = Device()
    device.boot()
    answered(device)
    return device


def crash(device: Device, *ran: str) -> None:
    device.hear(ServingProbed(status=None, alive=False, draw=0.5, ran=ran))


def answered(device: Device) -> None:
    sent = device.state.soft.sent
    assert sent is not None
    answer = CheckInAnswer(interval_s=60.0, acked=sent.outcomes)
    device.hear(CheckInAnswered(seq=sent.seq, answer=answer, draw=0.5))


def next_check_in(device: Device) -> CheckIn:
    """Wait for the next check-in."""
    device.now = max(device.now, device.state.soft.checkin_at)
    device.hear(TimerFired(draw=0.5))
    return device.checked_in()


def test_the_hub_is_told_at_once_and_a_heartbeat_stays_as_it_is() -> None:
    device = idle()
    crash(device, "digits", "detector")
    facts = device.checked_in().facts
    assert facts is not None
    assert [(one.model, one.reason) for one in facts.isolated] == [
        ("detector", WITH_OTHERS), ("digits", WITH_OTHERS),
    ]  # fmt: skip
    answered(device)
    heartbeat = next_check_in(device)
    assert heartbeat.facts is None
    assert len(encode(heartbeat)) <= 50
    answered(device)
    crash(device, "digits")
    assert next_check_in(device).facts is None, "the isolation is the same"


def test_a_report_that_is_lost_is_sent_again() -> None:
    device = idle()
    crash(device, "digits", "detector")
    first = device.checked_in()
    sent = device.state.soft.sent
    assert sent is not None
    device.hear(CheckInFailed(seq=sent.seq, code="unreachable", draw=0.5))
    assert next_check_in(device).facts == first.facts


def test_an_isolation_after_the_facts_were_sent_is_not_forgotten() -> None:
    """The answer to a check-in acknowledges the facts in it, and no later ones."""
    device = idle()
    crash(device, "digits", "detector")
    crash(device, "faces", "sounds")
    sent = device.state.soft.sent
    assert sent is not None
    assert sent.facts is not None
    assert len(sent.facts.isolated) == 2
    answered(device)
    facts = next_check_in(device).facts
    assert facts is not None
    assert len(facts.isolated) == 4
    answered(device)
    assert next_check_in(device).facts is None


def test_a_new_start_of_the_agent_ends_the_isolation_and_says_so() -> None:
    device = idle()
    crash(device, "digits", "detector")
    answered(device)
    device.boot()
    assert device.state.soft.crashes == Crashes()
    facts = device.checked_in().facts
    assert facts is not None
    assert facts.isolated == ()


def test_the_log_has_the_reason() -> None:
    device = idle()
    before = device.state
    event = ServingProbed(status=None, alive=False, draw=0.5, ran=("a", "b"))
    device.hear(event)
    texts = [text for _, text in narrate(before, event, device.state, device.now)]
    assert f"a: {isolation_text(WITH_OTHERS)}" in texts
