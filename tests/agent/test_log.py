"""The log of a device: one line per event, none for a normal check-in."""

import json
import logging

import pytest
from msgspec.structs import replace

from edgefleet.agent import log
from edgefleet.agent.event import (
    Activated,
    Booted,
    CheckInAnswered,
    CheckInFailed,
    DiskChecked,
    ServingProbed,
    StagingFailed,
    TimerFired,
)
from edgefleet.agent.narration import narrate
from edgefleet.agent.stored import from_store, to_store
from edgefleet.protocol.device import CheckInAnswer
from edgefleet.protocol.serving import ServingStatus
from edgefleet.protocol.serving_health import OUT_OF_MEMORY
from support.agent_steps import check_in, installed, to_watching
from support.agent_world import FACTS, Device, offer, serving, trial_crashed
from support.device_world import World


def lines(device: Device, event: object) -> list[str]:
    before = device.state
    device.hear(event)  # type: ignore[arg-type] - any event
    return [text for _, text in narrate(before, event, device.state, device.now)]  # type: ignore[arg-type] - as above


def test_a_line_of_the_log_is_one_line_without_control_characters() -> None:
    record = logging.makeLogRecord({"msg": "label a=1\n2026 info forged \x1b[2J", "created": 0.0})
    log.start(as_json=False)
    assert log.LOGGER.handlers[0].format(record).endswith(" label a=1 2026 info forged ?[2J")


def test_an_update_is_told_in_the_order_in_which_it_happens() -> None:
    told: list[str] = []
    world = World()
    core = world.core

    def listen(state, event, now):  # type: ignore[no-untyped-def] - step's own types
        new, effects = core(state, event, now)
        told.extend(text for _, text in narrate(state, event, new, now))
        return new, effects

    world.core = listen
    world.offer("1")
    world.boot()
    world.start()
    world.run_until_told("1")
    assert told == [
        "No release is installed. The agent waits for an offer of the hub.",
        "digits 1 is offered by rollout ro-1.",
        "digits 1 is being downloaded: 0.3 KiB.",
        "digits 1 is downloaded. Its golden set runs on this device.",
        "digits 1 is proved: 0 golden cases, accuracy 0.000, p50 0.0 ms.",
        "digits 1 waits for the hub to admit its trial.",
        "digits 1 is in trial, and is confirmed after 10 s of good health.",
        "digits 1 is confirmed.",
    ]


def test_a_hub_that_was_never_reached_is_not_lost() -> None:
    device = Device()
    device.boot(whole=())
    down = CheckInFailed(seq=1, code="unreachable", draw=0.5)
    assert lines(device, down) == [
        "The hub cannot be reached yet (unreachable). The agent retries with backoff."
    ]
    device.now += 60
    device.hear(TimerFired(draw=0.5))
    found = CheckInAnswered(seq=2, answer=CheckInAnswer(interval_s=60.0), draw=0.5)
    assert lines(device, found) == ["The hub answers after 60 s."]


def test_a_restarted_agent_has_not_reached_its_hub_yet() -> None:
    before = installed()
    device = Device(from_store(to_store(before.state)), now=before.now)
    device.boot()
    sent = device.state.soft.sent
    assert sent is not None
    failed = CheckInFailed(seq=sent.seq, code="timeout", detail="No.", draw=0.5)
    assert lines(device, failed)[0] == (
        "The hub cannot be reached yet (timeout: No). The agent serves on and retries with backoff."
    )


def test_an_answer_with_an_error_is_no_lost_hub() -> None:
    device = Device()
    device.boot(whole=())
    refused = CheckInFailed(seq=1, code="claim_used", detail="It is used.", draw=0.5)
    assert lines(device, refused) == [
        "No check-in succeeds (claim_used: It is used). The agent retries with backoff."
    ]


def test_a_link_that_stays_down_is_told_once_and_its_return_too() -> None:
    device = installed()
    last = device.state.soft.seq
    device.now += 60
    device.hear(TimerFired(draw=0.5))
    down = CheckInFailed(seq=last + 1, code="unreachable", draw=0.5)
    assert lines(device, down) == [
        "The hub is lost (unreachable). The agent serves on and retries with backoff."
    ]
    for seq in (last + 2, last + 3):
        device.now += 60
        assert lines(device, TimerFired(draw=0.5)) == []
        failed = CheckInFailed(seq=seq, code="unreachable", draw=0.5)
        assert lines(device, failed) == []
    device.now += 60
    device.hear(TimerFired(draw=0.5))
    back = CheckInAnswered(seq=last + 4, answer=CheckInAnswer(interval_s=60.0), draw=0.5)
    assert lines(device, back) == ["The hub answers again after 180 s."]


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
    assert lines(device, failed) == ["digits 2 is refused: signature_invalid: No trusted key."]


def test_a_disk_fault_names_the_path_and_the_error_of_the_operating_system() -> None:
    device = installed()
    detail = "/data/state.json cannot be written (Read-only file system)."
    told = lines(device, DiskChecked(fault="disk_readonly", detail=detail))
    assert told[0].startswith(f"disk_readonly: {detail} The disk of this device is read-only")
    assert lines(device, DiskChecked(fault="disk_readonly", detail=detail)) == []
    assert lines(device, DiskChecked(fault="")) == ["The disk can be written again."]

    again = Device(from_store(to_store(device.state)), now=device.now)
    before = again.state
    again.boot(disk_fault="disk_readonly", disk_detail=detail)
    booted = Booted(
        facts=FACTS, whole={}, pointer={}, serving=None, draw=0.0,
        disk_fault="disk_readonly", disk_detail=detail,
    )  # fmt: skip
    said = [text for _, text in narrate(before, booted, again.state, again.now)]
    assert said[0].startswith(f"disk_readonly: {detail}")


def test_work_that_is_repeated_says_why() -> None:
    device = Device()
    device.boot(whole=())
    device.hear(
        CheckInAnswered(
            seq=1, answer=CheckInAnswer(interval_s=60.0, offers=(offer("2"),)), draw=0.5
        )
    )
    lost = StagingFailed(
        model="digits", job=1, code="connection_lost", detail="9 bytes are missing.", draw=0.5
    )
    assert lines(device, lost) == [
        "digits 2 is not staged: connection_lost: 9 bytes are missing. The agent tries again."
    ]


def test_serving_that_ends_is_told_with_its_signal_and_its_return() -> None:
    device = installed()
    ended = ServingProbed(status=None, alive=False, draw=0.5, ran=("digits",), ends=("SIGKILL",))
    assert lines(device, ended) == [
        "The serving process ended by itself: SIGKILL, while digits ran.",
        "Serving is down: no release of digits is served.",
    ]
    device.now += 2.0
    device.hear(TimerFired(draw=0.5))
    job = device.state.soft.switch
    assert job is not None
    served = Activated(job=job, status=serving("1", pid=200))
    assert lines(device, served) == ["Serving is up again after 2.0 s: digits 1."]
    assert lines(device, ended)[0] == (
        "The serving process ended by itself: SIGKILL, while digits ran (2 times in the last hour)."
    )


def test_a_worker_that_ends_is_told_with_its_model() -> None:
    device = installed()
    (mine,) = serving("1", ready=False).models
    ended = ServingStatus(pid=100, models=(replace(mine, confirmed_ended=OUT_OF_MEMORY),))
    probed = ServingProbed(status=ended, alive=True, draw=0.5)
    assert lines(device, probed) == [
        "The worker of digits ended by itself: SIGKILL (out of memory).",
        "Serving is down: no release of digits is served.",
    ]
    assert lines(device, probed) == []


def test_a_trial_that_fails_says_its_cause() -> None:
    device = installed()
    check_in(device)
    to_watching(device, "2")
    ended = ServingProbed(status=trial_crashed("1"), alive=True, draw=0.5)
    assert lines(device, ended) == ["digits 2 is rolled back: serving_crashed: The worker crashed."]


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
