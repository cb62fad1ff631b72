"""Labels on their way through the agent: to the serving process, and their counts to the hub."""

from msgspec.structs import replace

from edgefleet.agent.effect import GiveTruth
from edgefleet.agent.event import (
    CheckInAnswered,
    CheckInFailed,
    ServingProbed,
    TimerFired,
    TruthGiven,
)
from edgefleet.protocol.device import CheckIn, CheckInAnswer
from edgefleet.protocol.labels import Label, LabelReport, ModelLabels, ModelTruth, ReleaseLabels
from support.agent_world import Device, serving

COUNTS = LabelReport(
    epoch=5,
    models=(
        ModelLabels(model="digits", releases=(ReleaseLabels(release="1", labelled=4, correct=3),)),
    ),
)
TRUTH = tuple(
    ModelTruth(number=number, model="digits", label=Label(id=f"r{number}", truth=1))
    for number in (7, 8)
)


def probed(device: Device, labels: LabelReport | None) -> None:
    status = replace(serving("1"), labels=labels)
    device.hear(ServingProbed(status=status, alive=True, draw=0.5))


def sent(device: Device) -> CheckIn:
    """The next check-in."""
    device.now = max(device.now, device.state.soft.checkin_at)
    device.hear(TimerFired(draw=0.5))
    return device.checked_in()


def answer(device: Device, *truth: ModelTruth) -> None:
    seq = device.state.soft.seq
    answered = CheckInAnswer(interval_s=60.0, truth=truth)
    device.hear(CheckInAnswered(seq=seq, answer=answered, draw=0.5))


def test_counts_are_sent_until_the_hub_has_them_and_then_after_a_change() -> None:
    device = Device()
    device.boot(whole=())
    answer(device)
    probed(device, COUNTS)
    check_in = sent(device)
    assert check_in.labels == COUNTS
    device.hear(CheckInFailed(seq=check_in.seq, code="timeout", draw=0.5))
    assert sent(device).labels == COUNTS, "the hub may not have got them"
    answer(device)
    assert sent(device).labels is None, "nothing has changed"
    answer(device)
    probed(device, replace(COUNTS, epoch=6))
    assert sent(device).labels == replace(COUNTS, epoch=6)


def test_labels_of_the_hub_go_to_the_serving_process_and_are_acknowledged_once() -> None:
    device = Device()
    device.boot(whole=())
    answer(device, *TRUTH)
    assert device.did(GiveTruth) == GiveTruth(truth=TRUTH)
    assert sent(device).truth_done == 0, "the serving process does not have them yet"
    answer(device)
    device.hear(TruthGiven(number=8))
    check_in = sent(device)
    assert check_in.truth_done == 8
    device.hear(CheckInFailed(seq=check_in.seq, code="timeout", draw=0.5))
    assert sent(device).truth_done == 8
    answer(device)
    assert sent(device).truth_done == 0


def test_labels_that_come_again_are_given_again() -> None:
    device = Device()
    device.boot(whole=())
    for _ in range(2):  # the first delivery may have failed
        answer(device, *TRUTH)
        assert device.did(GiveTruth) == GiveTruth(truth=TRUTH)
        sent(device)
