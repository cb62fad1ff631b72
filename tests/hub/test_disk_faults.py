"""A device that cannot write its disk is counted and found, also after a restart of the hub."""

import asyncio
from pathlib import Path

from msgspec.structs import replace

from edgefleet.hub.hub import Hub
from edgefleet.protocol.device_commands import DeviceFilter, RemoveDevice
from edgefleet.protocol.why import WaitCode
from edgefleet.security.principals import OPERATOR_TOKEN
from support.hub_inside import InsideDevice, ManualClock, enrol_inside, hub_inside, report
from support.raw_device import facts


async def say(hub: Hub, device: InsideDevice, fault: str) -> None:
    """Check in with the facts of a device that has this fault."""
    await report(hub, device, replace(device.said(), facts=replace(facts(), disk_fault=fault)))


def samples(hub: Hub) -> list[str]:
    lines = hub.metrics().splitlines()
    return [line for line in lines if line.startswith("edgefleet_disk_fault_devices{")]


def test_a_disk_fault_is_shown_counted_and_found(tmp_path: Path) -> None:
    async def before(devices: list[InsideDevice]) -> None:
        async with hub_inside(tmp_path / "data", ManualClock()) as hub:
            devices += await enrol_inside(hub, 4)
            await say(hub, devices[0], "disk_readonly")
            await say(hub, devices[1], "disk_readonly")
            await say(hub, devices[2], "disk_fault_of_a_newer_agent")
            await say(hub, devices[3], "disk_full")
            await say(hub, devices[3], "")
            check(hub)

    async def after(devices: list[InsideDevice]) -> None:
        async with hub_inside(tmp_path / "data", ManualClock()) as hub:
            check(hub)
            await hub.device_commands.remove(
                hub.row("d001"), RemoveDevice(person="alice"), OPERATOR_TOKEN
            )
            assert hub.fleet().disk_faults == {"disk_readonly": 1, "other": 1}
            await say(hub, devices[0], "")
            await say(hub, devices[2], "")
            assert (hub.fleet().disk_faults, samples(hub)) == ({}, [])

    def check(hub: Hub) -> None:
        assert hub.fleet().disk_faults == {"disk_readonly": 2, "other": 1}
        assert samples(hub) == [
            'edgefleet_disk_fault_devices{fault="disk_readonly"} 2',
            'edgefleet_disk_fault_devices{fault="other"} 1',
        ]
        found = hub.devices(None, 10, DeviceFilter(states=("disk_fault",))).devices
        assert [view.name for view in found] == ["d000", "d001", "d002"]
        assert found[0].disk_fault == "disk_readonly"
        why = hub.why_device("d000")
        assert why.waits[0].code is WaitCode.DISK_FAULT
        assert why.line.startswith("The disk of this device is read-only")
        assert WaitCode.DISK_FAULT not in {wait.code for wait in hub.why_device("d003").waits}

    async def main() -> None:
        devices: list[InsideDevice] = []
        await before(devices)
        await after(devices)

    asyncio.run(main())
