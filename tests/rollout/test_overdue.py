"""Overdue devices stop growth long before they count as silent."""

from msgspec.structs import replace

from edgefleet.protocol.device import OutcomeKind, Phase
from edgefleet.protocol.rollout import ExposureSpec, GateSpec, Status
from edgefleet.protocol.why import WaitCode
from edgefleet.rollout.constraints.overdue import Overdue
from edgefleet.rollout.limits import OVERDUE_SAMPLES
from edgefleet.testing import FakeDevice, Fate
from support.fleets import CheckedFleet, memory_hub
from support.plans import GATE, outcome, spec

STARTED, CONFIRMED = OutcomeKind.TRIAL_STARTED, OutcomeKind.CONFIRMED
PATIENT = replace(GATE, silence_s=200.0, patience_s=1000.0)


def brick_one_in(count: int, devices: int = 3000) -> tuple[CheckedFleet, str]:
    fleet = CheckedFleet(devices)
    fleet.publish("1")
    fleet.finish(fleet.start(spec("1", 100)))

    def behaves(device: FakeDevice) -> Fate:
        return Fate.SILENT if count and device.row % count == 0 else Fate.HEALTHY

    fleet.publish("2", fate=behaves)
    wanted = spec("2", 100, gate=PATIENT, exposure=ExposureSpec(first=10, ceiling=1.0))
    return fleet, fleet.start(wanted)


def test_silent_devices_stop_growth_before_the_gate_counts_them():
    fleet, rollout = brick_one_in(20)
    view = fleet.settle(rollout, 15)
    assert (view.status, view.evidence.silent) == (Status.RUNNING, 0)
    assert view.exposed < 1500
    good, same = brick_one_in(0)
    assert good.settle(same, 15).exposed == 3000


def test_why_says_how_many_are_missing():
    fleet, rollout = brick_one_in(20)
    fleet.settle(rollout, 20)
    overdue = fleet.engine.rollout(rollout).overdue
    counts = f"{overdue.missing} of {overdue.due} devices are overdue"
    waits = {wait.code: wait for wait in fleet.view(rollout).why.waits}
    assert counts in waits[WaitCode.EXPOSURE].text


def test_growth_goes_on_when_the_devices_check_in_again():
    fleet, rollout = brick_one_in(20)
    fleet.settle(rollout, 15)
    for device in fleet.by_row:
        device.dead = False
    fleet.publish("2")
    assert fleet.settle(rollout, 30).exposed == 3000


def test_overdue_devices_are_compared_with_those_that_began_as_long_ago():
    overdue = Overdue()
    for now, began in ((0.0, 0), (10.0, 50), (20.0, 400), (30.0, 3000)):
        overdue.update(GateSpec(), missing=0, began=began, now=now, within_s=15.0)
    assert overdue.due == 50
    overdue.update(GateSpec(), missing=3, began=3000, now=31.0, within_s=15.0)
    assert (overdue.due, overdue.suspect) == (50, True)
    overdue.update(GateSpec(), missing=3, began=3000, now=45.0, within_s=15.0)
    assert (overdue.due, overdue.suspect) == (3000, False)


def test_the_kept_samples_are_bounded():
    overdue = Overdue()
    for second in range(10_000):
        overdue.update(GateSpec(), missing=0, began=second, now=float(second), within_s=5000.0)
    assert OVERDUE_SAMPLES / 2 <= overdue.samples <= OVERDUE_SAMPLES + 2


def test_a_restarted_hub_waits_until_the_devices_in_trial_check_in():
    hub = memory_hub(400, "1")
    wanted = spec("1", 100, gate=PATIENT, exposure=ExposureSpec(first=10))
    rollout = hub.start(wanted)
    for row in range(10):
        start = replace(outcome(rollout, "1", STARTED, at=hub.now), id=f"{row}")
        assert hub.engine.admission.admit(row, start, hub.now)
        hub.record(row, start)
    for row in range(5):
        confirmed = outcome(rollout, "1", CONFIRMED, at=hub.now)
        hub.record(row, replace(confirmed, id=f"{row}/well"))
    for reverse in (False, True):
        hub.now += 100.0
        hub.restart(reverse=reverse)
        hub.evaluate()
        overdue = hub.engine.rollout(rollout).overdue
        assert (overdue.missing, overdue.due, overdue.suspect) == (5, 10, True)
    for row in range(5, 10):
        hub.engine.fleet.observe(row, hub.now, model=None, release=None, phase=Phase.IDLE)
    hub.evaluate()
    assert not overdue.suspect
