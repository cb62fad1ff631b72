"""An operator handles devices, on a real hub and real agents."""

import shutil
from pathlib import Path

import pytest

from support.real_fleet import real_fleet

pytestmark = pytest.mark.slow


def test_devices_are_renamed_found_and_removed_while_they_serve(tmp_path: Path) -> None:
    with real_fleet(tmp_path) as fleet:
        one, two = fleet.add("cam-1"), fleet.add("cam-2")
        fleet.roll_out("1")
        edgefleet = fleet.edgefleet
        renamed = edgefleet("device", "rename", "cam-1", "door")
        assert renamed.out == "cam-1 is named door now.\n"
        removed = edgefleet("device", "remove", "cam-2", "--note", "stolen")
        assert removed.out == "cam-2 is removed. Its credential is valid no more.\n"
        assert edgefleet("device", "search", "DOO", "--json").json["devices"][0]["name"] == "door"
        assert edgefleet("device", "show", "cam-2").exit == 3
        shown = edgefleet("fleet", "show").out
        assert "devices        1, 1 online" in shown
        for agent in (one, two):  # neither loses its release, also over a restart of hub and agent
            agent.stop()
        fleet.hub.stop()
        fleet.hub.start()
        for agent in (one, two):
            agent.start()
            assert agent.wait_serving()[1].release == "1"
        fleet.until(lambda: fleet.client.device("door").online)
        rollout = fleet.roll_out("2")
        assert fleet.client.rollout(rollout).evidence.cut == 1
        assert fleet.runs("door") == "2"
        fleet.until(lambda: 'result="device_removed"' in fleet.client.metrics())
        assert two.wait_serving()[1].release == "1"


def test_labels_of_device_and_operator_change_on_an_enrolled_device(tmp_path: Path) -> None:
    """Each agent is started with the label ``site=lyon``."""
    with real_fleet(tmp_path) as fleet:
        agent, edgefleet = fleet.add("cam-1"), fleet.edgefleet
        assert "site=lyon (device)" in edgefleet("device", "show", "cam-1").out
        agent.stop()
        agent.start("--label", "site=oslo", "--label", "tier=gold")
        fleet.until(lambda: fleet.client.device("cam-1").labels.get("tier") == "gold")
        assert fleet.client.device("cam-1").labels == {"site": "oslo", "tier": "gold"}
        said = edgefleet("device", "label", "cam-1", "site=rome", "--person", "alice").out
        text = "site=rome (operator; the device reports oslo), tier=gold (device)"
        assert said == f"cam-1 has the labels {text}.\n"
        rollout = fleet.roll_out("1", "site=rome")
        assert fleet.client.rollout(rollout).evidence.cut == 1
        agent.stop()
        agent.start("--label", "site=bern")
        fleet.until(lambda: fleet.client.device("cam-1").own_labels == {"site": "bern"})
        assert fleet.client.device("cam-1").labels == {"site": "rome"}
        fleet.until(
            lambda: "label site=bern has no effect: the operator set site=rome" in agent.log()
        )
        fleet.hub.stop()
        fleet.hub.start()
        assert fleet.client.device("cam-1").labels == {"site": "rome"}
        assert edgefleet("device", "label", "cam-1", "site-").exit == 0
        assert fleet.client.device("cam-1").labels == {"site": "bern"}
        missing = edgefleet("device", "label", "cam-1", "site-")
        assert "The operator has set no label site on this device." in missing.err


def test_a_hub_restored_from_an_older_copy_waits_for_the_operator(tmp_path: Path) -> None:
    with real_fleet(tmp_path) as fleet:
        edgefleet, hub = fleet.edgefleet, fleet.hub
        one = fleet.add("cam-1")
        fleet.roll_out("1")
        hub.stop()
        shutil.copytree(hub.data_dir, tmp_path / "copy")
        hub.start()
        new = fleet.add("cam-2")
        fleet.roll_out("2")
        assert {fleet.runs("cam-1"), fleet.runs("cam-2")} == {"2"}
        hub.stop()
        shutil.rmtree(hub.data_dir)
        shutil.copytree(tmp_path / "copy", hub.data_dir)
        hub.start()
        # One device is ahead of the hub, and the hub does not know the other one.
        fleet.until(lambda: fleet.client.fleet().ahead == 1)
        fleet.until(lambda: fleet.client.fleet().unknown_devices == ("cam-2",))
        hub.stop()
        hub.start()  # it knows that still after a restart
        assert fleet.client.fleet().ahead == 1
        fleet.until(lambda: fleet.client.device("cam-1").online)
        fleet.until(lambda: fleet.client.fleet().unknown_devices)
        shown = edgefleet("fleet", "show").out
        assert "ahead of the hub  1: see" in shown
        assert "cam-2: the hub made their credentials" in shown
        assert "edgefleet_ahead_devices 1" in fleet.client.metrics()
        listed = edgefleet("device", "list", "--ahead", "--json").json
        assert [one["name"] for one in listed["devices"]] == ["cam-1"]
        assert "has no record of" in edgefleet("device", "why", "cam-1").out
        for agent in (one, new):
            assert agent.wait_serving()[1].release == "2"
        accepted = edgefleet("hub", "accept-restored", "--note", "backup of Monday")
        assert "Devices that were ahead of the hub: 1." in accepted.out
        assert fleet.client.fleet().ahead == 0
        fleet.until(lambda: fleet.client.fleet().online == 2)
        fleet.until(lambda: fleet.runs("cam-1") == "1")
        assert "accept_restored" in edgefleet("audit").out


def test_agents_on_copied_disks_are_shown_count_once_and_wait_for_an_operator(
    tmp_path: Path,
) -> None:
    with real_fleet(tmp_path) as fleet:
        edgefleet = fleet.edgefleet
        one, other = fleet.add("cam-1"), fleet.agent("cam-1", home="copy")
        fleet.roll_out("1")
        one.kill()
        shutil.copytree(one.data, other.data, ignore=shutil.ignore_patterns("*.sock", "*.pid"))
        one.start()
        one.wait_serving()
        assert not fleet.client.device("cam-1").copies  # killed and started again: one device
        other.start()
        fleet.until(lambda: len(fleet.client.device("cam-1").copies) == 2)
        seen = fleet.client.fleet()
        assert (seen.copied, seen.total, seen.online) == (1, 1, 1)
        assert seen.on_release == {"digits": {"1": 1}}
        shown = edgefleet("device", "show", "cam-1").out
        for run in fleet.client.device("cam-1").copies:
            assert f"number {run.run}." in one.log() + other.log()
            assert f"{run.run}, last seen" in shown
        assert "online, copied" in edgefleet("device", "list", "--copied").out
        assert "Several agents use the credential" in edgefleet("device", "why", "cam-1").out
        assert "edgefleet_copied_devices 1" in fleet.client.metrics()
        fleet.hub.stop()
        fleet.hub.start()
        assert fleet.client.fleet().copied == 1  # the hub remembers it
        fleet.until(lambda: fleet.client.device("cam-1").online)
        assert len(fleet.client.device("cam-1").copies) == 2
        for agent in (one, other):
            assert agent.wait_serving()[1].release == "1"
        other.stop()
        cleared = edgefleet("device", "clear-copy", "cam-1", "--note", "one card is erased").out
        assert cleared.startswith("cam-1 is no longer copied.")
        assert edgefleet("device", "clear-copy", "cam-1").exit == 3
        fleet.roll_out("2")
        assert not fleet.client.device("cam-1").copies
        assert one.wait_serving()[1].release == "2"
