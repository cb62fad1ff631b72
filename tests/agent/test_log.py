"""The log of a device: one line per event, none for a normal check-in."""

import json
import logging

import pytest

from edgefleet.agent import log
from edgefleet.agent.event import CheckInAnswered, CheckInFailed, StagingFailed, TimerFired
from edgefleet.protocol.device import CheckInAnswer, OutcomeKind
from support.agent_world import Device, offer
from support.device_world import World


def lines(device: Device, event: object) -> list[str]:
    before = device.state
    device.hear(event)  # type: ignore[arg-type] - any event
    return [text for _, text in log.narrate(before, event, device.state)]  # type: ignore[arg-type] - as above


def test_an_update_is_told_in_the_order_in_which_it_happens() -> None:
    told: list[str] = []
    world = World()
    core = world.core

    def listen(state, event, now):  # type: ignore[no-untyped-def] - step's own types
        new, effects = core(state, event, now)
        told.extend(text for _, text in log.narrate(state, event, new))
        return new, effects

    world.core = listen
    world.offer("1")
    world.boot()
    world.start()
    world.run_until_told("1")
    assert told == [
        "digits: idle -> manifest (release 1, rollout ro-1)",
        "digits: manifest -> fetching (release 1, rollout ro-1)",
        "digits: fetching -> proving (release 1, rollout ro-1)",
        "release 1 trial_started",
        "digits: proving -> announcing (release 1, rollout ro-1)",
        "digits: announcing -> activating (release 1, rollout ro-1)",
        "digits: activating -> watching (release 1, rollout ro-1)",
        "serves digits 1",
        "release 1 confirmed",
        "digits: watching -> idle (release 1, rollout ro-1)",
    ]


def test_a_link_that_stays_down_is_told_once_and_its_return_too() -> None:
    device = Device()
    device.boot(whole=())
    down = CheckInFailed(seq=1, code="unreachable", draw=0.5)
    assert lines(device, down) == ["check-in failed: unreachable; retrying with backoff"]
    for seq in (2, 3):
        device.now += 60
        assert lines(device, TimerFired(draw=0.5)) == []
        failed = CheckInFailed(seq=seq, code="unreachable", draw=0.5)
        assert lines(device, failed) == []
    device.now += 60
    device.hear(TimerFired(draw=0.5))
    back = CheckInAnswered(seq=4, answer=CheckInAnswer(interval_s=60.0), draw=0.5)
    assert lines(device, back) == ["check-in answered again"]


def test_a_failure_says_its_code_and_what_was_made_of_it() -> None:
    device = Device()
    device.boot(whole=())
    asked = CheckInAnswered(
        seq=1, answer=CheckInAnswer(interval_s=60.0, offers=(offer("2"),)), draw=0.5
    )
    device.hear(asked)
    failed = StagingFailed(
        model="digits", job=1, code="signature_invalid", detail="No trusted key.", draw=0.5
    )
    assert lines(device, failed) == [
        "work failed: signature_invalid: No trusted key.",
        f"release 2 {OutcomeKind.REFUSED}: signature_invalid: No trusted key.",
        "digits: manifest -> idle (release 2, rollout ro-2)",
    ]


@pytest.mark.parametrize("as_json", [True, False])
def test_a_line_is_text_or_one_json_object(
    as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    log.start(as_json=as_json)
    try:
        log.LOGGER.warning("no %s", "room")
        line = capsys.readouterr().err.strip()
    finally:
        log.LOGGER.handlers = []
        log.LOGGER.setLevel(logging.NOTSET)
        log.LOGGER.propagate = True
    if as_json:
        said = json.loads(line)
        assert (said["level"], said["text"], set(said)) == (
            "warning",
            "no room",
            {"at", "level", "text"},
        )
    else:
        stamp, level, text = line.split(maxsplit=2)
        assert (stamp[-1], level, text) == ("Z", "warning", "no room")
