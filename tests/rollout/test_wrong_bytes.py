"""The same wrong bytes on several devices are those of the artifact, which no device can get."""

import pytest

from edgefleet.protocol.device import Outcome, OutcomeKind, Reason, WrongBytes
from edgefleet.protocol.rollout import Evidence, Status, Verb
from edgefleet.rollout.limits import WRONG_BYTES_DEVICES
from edgefleet.testing import FakeDevice, FakeFleet
from edgefleet.testing.release import ARTIFACT_SHA256
from support.plans import spec

FOUND = "f" * 64


def fleet_of(devices: int, sites: str = "lyon") -> FakeFleet:
    """A fleet that runs release 1 while release 2 is rolled out. No device has begun."""
    fleet, names = FakeFleet(), sites.split(",")
    for number in range(devices):
        device = FakeDevice(f"cam-{number}", labels={"site": names[number % len(names)]})
        device.offline = True
        fleet.enrol(device)
    fleet.publish("1")
    fleet.install("1")
    fleet.publish("2")
    fleet.command(fleet.plan(spec("2", 100)), Verb.START)
    return fleet


def defer(fleet: FakeFleet, name: str, found: str = FOUND, expected: str = ARTIFACT_SHA256) -> None:
    rollout = fleet.engine.states()[0].id
    fleet.engine.intake.record(
        fleet.devices[name].row,
        Outcome(
            id=f"{name}-{found[:8]}", rollout=rollout, release="2", kind=OutcomeKind.DEFERRED,
            at=fleet.now, reason=Reason.TRANSFER, attempt=1,
            wrong_bytes=WrongBytes(expected=expected, found=found),
        ),
        fleet.now,
    )  # fmt: skip


def evidence(fleet: FakeFleet) -> Evidence:
    return fleet.view(fleet.engine.states()[0].id).evidence


def counts(fleet: FakeFleet) -> tuple[int, int, int]:
    seen = evidence(fleet)
    return seen.deferred, seen.refused, seen.damaged


@pytest.mark.parametrize("devices", [WRONG_BYTES_DEVICES - 1, WRONG_BYTES_DEVICES])
def test_as_many_devices_as_the_limit_say_that_the_artifact_is_damaged(devices: int) -> None:
    fleet = fleet_of(6)
    for number in range(devices):
        defer(fleet, f"cam-{number}")
    is_enough = devices == WRONG_BYTES_DEVICES
    assert counts(fleet) == ((0, devices, devices) if is_enough else (devices, 0, 0))


def test_the_cause_names_artifact_and_both_digests() -> None:
    fleet = fleet_of(6)
    for number in range(3):
        defer(fleet, f"cam-{number}")
    seen = evidence(fleet)
    assert seen.reasons == {"digest_mismatch": 3}
    assert seen.examples["digest_mismatch"] == "cam-0"
    for part in ("the model file for generic_x86", ARTIFACT_SHA256, FOUND):
        assert part in seen.details["digest_mismatch"]


def test_the_rollout_ends_and_offers_the_release_no_more() -> None:
    fleet = fleet_of(6)
    for number in range(3):
        defer(fleet, f"cam-{number}")
    fleet.tick(3600.0)  # the patience with the other three, which are offline
    view = fleet.view(fleet.engine.states()[0].id)
    assert (view.status, view.reason) == (Status.REFUSED, "refused_by_devices")
    assert FOUND in view.text


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (("a" * 64, "b" * 64, "c" * 64), ARTIFACT_SHA256),  # other bytes on each device
        ((FOUND,) * 3, "9" * 64),  # of an artifact that the release does not have
        ((ARTIFACT_SHA256,) * 3, ARTIFACT_SHA256),  # the right ones
    ],
)
def test_reports_that_do_not_agree_prove_nothing(found: tuple[str, ...], expected: str) -> None:
    fleet = fleet_of(6)
    for number, one in enumerate(found):
        defer(fleet, f"cam-{number}", one, expected)
    assert counts(fleet) == (3, 0, 0)


def test_one_site_may_have_a_proxy_that_changes_the_bytes() -> None:
    fleet = fleet_of(8, "lyon,oslo")
    for number in (0, 2, 4, 6):  # all of lyon
        defer(fleet, f"cam-{number}")
    assert counts(fleet) == (4, 0, 0)
    defer(fleet, "cam-1")
    assert counts(fleet) == (0, 5, 5)


def test_a_removed_device_says_nothing_any_more() -> None:
    fleet = fleet_of(6)
    for number in range(3):
        defer(fleet, f"cam-{number}")
    fleet.remove("cam-1")
    assert counts(fleet) == (2, 0, 0)


def test_a_device_that_starts_after_all_does_not_count() -> None:
    fleet = fleet_of(6)
    for number in range(3):
        defer(fleet, f"cam-{number}")
    assert fleet.report("cam-1", fleet.engine.states()[0].id, OutcomeKind.TRIAL_STARTED)
    assert counts(fleet) == (2, 0, 0)
