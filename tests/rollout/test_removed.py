"""Devices that are removed from the fleet, and the rollouts of which they were a part."""

from edgefleet.protocol.rollout import Evidence, Status, Verb
from support.fleets import CheckedFleet
from support.plans import spec


def cuts(fleet: CheckedFleet, rollout: str) -> list[int | None]:
    return [wave.cut for wave in fleet.view(rollout).waves]


def accounts(fleet: CheckedFleet, rollout: str) -> tuple[int, int, int]:
    seen: Evidence = fleet.view(rollout).evidence
    return seen.cut, seen.healthy, seen.not_begun


def ended_rollout() -> tuple[CheckedFleet, str]:
    """20 devices, of which two are offline: 18 confirm, and the operator ends the rollout."""
    fleet = CheckedFleet(20)
    fleet.publish("1")
    fleet.finish(fleet.start(spec("1", 100)))
    fleet.publish("2")
    for row in (3, 4):
        fleet.by_row[row].offline = True
    fleet.tick(60)
    rollout = fleet.start(spec("2", 50, 100))
    fleet.tick(60)
    while fleet.view(rollout).status is Status.RUNNING:
        fleet.command(rollout, Verb.ADVANCE)
        fleet.tick(60)
    return fleet, rollout


def test_removed_devices_leave_the_cuts_of_a_rollout_that_has_ended() -> None:
    fleet, rollout = ended_rollout()
    assert fleet.view(rollout).status is Status.COMPLETED
    whole, first = accounts(fleet, rollout), cuts(fleet, rollout)
    assert whole == (20, 18, 2)
    fleet.remove("d00003")
    assert accounts(fleet, rollout) == (19, 18, 1), "it had not begun"
    fleet.remove("d00010")
    assert accounts(fleet, rollout) == (18, 17, 1), "it had confirmed"
    left = cuts(fleet, rollout)
    assert left[1] == 18
    assert first[0] is not None
    assert left[0] in range(first[0] - 2, first[0] + 1)
    fleet.restart()
    assert (accounts(fleet, rollout), cuts(fleet, rollout)) == ((18, 17, 1), left)


def test_a_cut_that_was_counted_after_a_removal_is_right() -> None:
    fleet, older = ended_rollout()
    fleet.remove("d00003")
    fleet.tick(1)
    fleet.publish("3")
    rollout = fleet.start(spec("3", 50, 100))
    fleet.tick(60)
    fleet.remove("d00004")
    while fleet.view(rollout).status is Status.RUNNING:
        fleet.command(rollout, Verb.ADVANCE)
        fleet.tick(60)
    assert (accounts(fleet, rollout), accounts(fleet, older)) == ((18, 18, 0), (18, 18, 0))
    fleet.restart()
    assert (accounts(fleet, rollout), accounts(fleet, older)) == ((18, 18, 0), (18, 18, 0))
