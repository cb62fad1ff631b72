"""The time and the content of check-ins."""

import pytest
from msgspec.structs import replace

from edgefleet.agent import limits
from edgefleet.agent.event import (
    CheckInAnswered,
    CheckInFailed,
    DiskChecked,
    ServingProbed,
    TimerFired,
)
from edgefleet.agent.state import AgentState, ModelState
from edgefleet.agent.step import wake_at
from edgefleet.agent.stored import from_store, to_store
from edgefleet.protocol.device import CheckInAnswer
from support.agent_world import FACTS, Device, serving


def booted() -> Device:
    device = Device()
    device.boot(whole=())
    return device


def answer(device: Device, *, draw: float = 0.5, **more: object) -> None:
    said: dict[str, object] = {"interval_s": 60.0, **more}
    device.hear(
        CheckInAnswered(
            seq=device.state.soft.seq,
            answer=CheckInAnswer(**said),  # type: ignore[arg-type] - fields by name
            draw=draw,
        )
    )


def fail(device: Device, code: str = "unreachable", **more: int) -> None:
    device.hear(CheckInFailed(seq=device.state.soft.seq, code=code, draw=1.0, **more))


def next_pause(device: Device) -> float:
    return device.state.soft.checkin_at - device.now


@pytest.mark.parametrize(("draw", "pause"), [(0.0, 48.0), (0.5, 60.0), (1.0, 72.0)])
def test_the_next_check_in_comes_after_the_interval_give_or_take_a_fifth(
    draw: float, pause: float
) -> None:
    device = booted()
    answer(device, draw=draw)
    assert next_pause(device) == pytest.approx(pause)


@pytest.mark.parametrize(("asked", "taken"), [(0.0, limits.INTERVAL_MIN_S), (1e9, 86_400.0)])
def test_an_interval_out_of_bounds_is_bounded(asked: float, taken: float) -> None:
    device = booted()
    answer(device, interval_s=asked)
    assert device.state.interval_s == taken


def test_devices_that_get_their_power_back_together_do_not_call_together() -> None:
    early, late = Device(), Device()
    early.boot(draw=0.0)
    late.boot(draw=1.0)
    assert (next_pause(early), next_pause(late)) == (0.0, limits.BOOT_SPREAD_S)


def test_a_link_that_fails_is_tried_ever_later_up_to_a_cap() -> None:
    device = booted()
    pauses: list[float] = []
    for _ in range(12):
        fail(device)
        pauses.append(next_pause(device))
        device.now += pauses[-1]
        device.hear(TimerFired(draw=0.5))
    assert pauses[:4] == [1.0, 2.0, 4.0, 8.0]
    assert pauses[-1] == limits.BACKOFF_INTERVALS * 60.0


def test_facts_are_told_until_acknowledged_and_again_when_asked_for() -> None:
    device = booted()
    assert device.checked_in().facts == FACTS
    fail(device)
    device.now += 10
    device.hear(TimerFired(draw=0.5))
    assert device.checked_in().facts == FACTS
    answer(device)
    device.now += 100
    device.hear(TimerFired(draw=0.5))
    assert device.checked_in().facts is None
    answer(device, want="facts")
    device.now += 100
    device.hear(TimerFired(draw=0.5))
    assert device.checked_in().facts == FACTS


def test_an_agent_that_was_updated_tells_its_facts_once_more() -> None:
    device = booted()
    answer(device)
    restarted = Device(from_store(to_store(device.state)), now=device.now)
    restarted.boot(whole=())
    assert restarted.checked_in().facts is None
    updated = replace(FACTS, agent_version="0.2.0")
    restarted = Device(from_store(to_store(device.state)), now=device.now)
    restarted.boot(whole=(), facts=updated)
    assert restarted.checked_in().facts == updated


def test_a_sequence_number_is_reserved_on_disk_before_it_is_sent_and_never_used_again() -> None:
    device = booted()
    used = [device.checked_in().seq]
    for _ in range(3):
        state = from_store(to_store(device.state))
        device = Device(state, now=device.now + 100)
        device.boot(whole=())
        used.append(device.checked_in().seq)
    assert used == [1, 1 + limits.SEQ_BLOCK, 1 + 2 * limits.SEQ_BLOCK, 1 + 3 * limits.SEQ_BLOCK]


def test_a_replayed_number_goes_on_from_the_one_that_the_hub_names() -> None:
    device = Device(AgentState(interval_s=60.0))
    device.boot(whole=())
    fail(device, "checkin_replayed", next_seq=5000)
    assert device.checked_in().seq == 5000
    assert device.state.seq_reserved >= 5000
    fail(device, "checkin_replayed", next_seq=9000)
    assert device.kinds() == (), "a second refusal is followed by a pause"
    assert next_pause(device) > 0


@pytest.mark.parametrize(
    ("asked", "least", "most"),
    [(5.0, 5.0, 6.0), (600.0, 600.0, 720.0), (1e9, 3600.0, 4320.0)],
)
def test_a_busy_hub_is_left_alone_for_as_long_as_it_asks(
    asked: float, least: float, most: float
) -> None:
    pauses = []
    for draw in (0.0, 1.0):
        device = booted()
        seq = device.state.soft.seq
        device.hear(CheckInFailed(seq=seq, code="overloaded", draw=draw, retry_after_s=asked))
        pauses.append(next_pause(device))
    assert pauses == pytest.approx([least, most])


def test_a_report_waits_while_the_hub_is_busy() -> None:
    device = booted()
    seq = device.state.soft.seq
    device.hear(CheckInFailed(seq=seq, code="overloaded", draw=0.0, retry_after_s=30.0))
    device.hear(DiskChecked(fault="disk_full"))
    assert device.kinds() == (), "the new fault is sent with the next check-in"
    assert wake_at(device.state, device.now) == device.now + 30.0
    device.now += 30.0
    device.hear(TimerFired(draw=0.5))
    assert device.checked_in().seq == seq + 1


def test_an_answer_to_another_check_in_changes_nothing() -> None:
    device = booted()
    before = device.state
    device.hear(CheckInAnswered(seq=999, answer=CheckInAnswer(interval_s=1.0), draw=0.5))
    assert device.state == before


def test_telemetry_goes_with_the_check_in_and_is_forgotten_once_acknowledged() -> None:
    device = Device(AgentState(interval_s=60.0, models={"digits": ModelState()}))
    device.boot(whole=())
    answer(device)
    seen = serving("1", requests=7)
    device.hear(ServingProbed(status=seen, alive=True, draw=0.5))
    device.now += 100
    device.hear(TimerFired(draw=0.5))
    telemetry = device.checked_in().telemetry
    assert telemetry is not None
    assert (telemetry.release, telemetry.requests) == ("1", 7)
    fail(device)
    device.now += 100
    device.hear(TimerFired(draw=0.5))
    assert device.checked_in().telemetry == telemetry, "not acknowledged, so sent again"
    answer(device)
    device.now += 100
    device.hear(TimerFired(draw=0.5))
    assert device.checked_in().telemetry is None
