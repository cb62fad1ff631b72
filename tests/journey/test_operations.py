"""An operator handles devices, on a real hub and real agents."""

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
