"""Decisions of people besides the verbs: approve, freeze, and unquarantine."""

import pytest

from edgefleet.protocol.operator import QuarantinedDevice, QuarantinedDevices, Unquarantine
from edgefleet.protocol.rollout import ApproveRequest, Freeze, Status
from edgefleet.protocol.wire import decode
from support.canned_hub import CannedHub
from support.command_line import CommandLine
from support.fake_reads import FakeReads, rollout_in


def test_a_person_approves_the_open_rollout(fleet: CommandLine, canned: CannedHub) -> None:
    running = rollout_in(Status.RUNNING)
    canned.put("POST", f"/api/v1/rollouts/{running.id}/approve", running)
    said = fleet("rollout", "approve", "--person", "alice", "--note", "agreed")
    assert said.exit == 0, said.err
    sent = decode(canned.asked[-1].body, ApproveRequest)
    assert (sent.person, sent.note) == ("alice", "agreed")


@pytest.mark.parametrize(("verb", "frozen"), [("freeze", True), ("thaw", False)])
def test_the_fleet_is_frozen_and_let_go(
    fleet: CommandLine, canned: CannedHub, verb: str, frozen: bool
) -> None:
    canned.put("PUT", "/api/v1/freeze", Freeze(frozen=frozen, person="alice"))
    said = fleet("fleet", verb, "--person", "alice")
    assert said.exit == 0, said.err
    sent = decode(canned.asked[-1].body, Freeze)
    assert (sent.frozen, sent.person) == (frozen, "alice")
    assert ("is not frozen" in said.out) is not frozen


def test_quarantined_devices_are_listed_and_cleared(fleet: CommandLine, canned: CannedHub) -> None:
    device = FakeReads().device_views[0]
    one = QuarantinedDevice(name=device.name, model="digits", rollbacks=2)
    canned.put("GET", "/api/v1/quarantined", QuarantinedDevices(count=7, devices=(one,)))
    canned.put("POST", f"/api/v1/devices/{device.name}/unquarantine", device)
    listed = fleet("device", "quarantined")
    assert device.name in listed.out
    assert "and 6 more" in listed.out
    said = fleet("device", "unquarantine", device.name, "--person", "bob")
    assert said.exit == 0, said.err
    assert decode(canned.asked[-1].body, Unquarantine).person == "bob"


def test_nobody_named_is_whoever_is_logged_in(
    fleet: CommandLine, canned: CannedHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    canned.put("PUT", "/api/v1/freeze", Freeze(frozen=True))
    assert fleet("fleet", "freeze", LOGNAME="carol").exit == 0
    assert decode(canned.asked[-1].body, Freeze).person == "carol"
