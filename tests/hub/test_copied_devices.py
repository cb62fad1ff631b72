"""Several agents with one credential, at a real hub: counted once, held, and cleared."""

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace

from edgefleet.base.errors import OperatorError
from edgefleet.hub.hub import Hub
from edgefleet.protocol.device_commands import ClearCopy, DeviceFilter, RemoveDevice
from edgefleet.protocol.rollout import Command, RolloutSpec, Verb, WaveSpec
from edgefleet.protocol.why import WaitCode
from edgefleet.protocol.wire import Problem, decode
from edgefleet.security.principals import OPERATOR_TOKEN
from edgefleet.security.signing import PublisherKey
from support.hub_inside import (
    InsideDevice,
    ManualClock,
    check_in,
    enrol_inside,
    hub_inside,
    publish_inside,
)
from support.tiny_releases import tiny_release

KEY = PublisherKey.generate()


class Agent:
    """One of the agents that use the credential of a device."""

    def __init__(self, device: InsideDevice, run: int) -> None:
        self.device = InsideDevice(device.name, device.token)
        self.device.seq = device.seq
        self.run = run
        self.is_known = False

    async def check_in(self, hub: Hub) -> bytes:
        """One check-in; the next number that the hub names follows a refused one."""
        for _ in range(2):
            said = replace(self.device.said(), run=0 if self.is_known else self.run)
            reply = await check_in(hub, self.device, said)
            self.is_known = reply.status == 200
            if self.is_known:
                return bytes(reply.body)
            next_seq = decode(reply.body, Problem).next_seq
            assert next_seq is not None
            self.device.seq = next_seq - 1
        raise AssertionError


async def take_turns(hub: Hub, clock: ManualClock, agents: list[Agent]) -> None:
    for _ in range(4):
        for agent in agents:
            clock.time += 1
            await agent.check_in(hub)


async def rolled_out(hub: Hub, tmp_path: Path) -> str:
    await publish_inside(hub, KEY, tiny_release(tmp_path / "releases", "1"))
    spec = RolloutSpec(model="digits", release="1", waves=(WaveSpec(percent=100),), bake_s=0)
    rollout = (await hub.plan(spec, OPERATOR_TOKEN)).id
    await hub.command(rollout, Verb.START, Command(), OPERATOR_TOKEN)
    return rollout


def test_a_copied_device_is_held_over_a_restart_until_an_operator_clears_it(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        clock = ManualClock()
        async with hub_inside(tmp_path / "data", clock) as hub:
            device, other = await enrol_inside(hub, 2)
            agents = [Agent(device, 1), Agent(device, 2)]
            await take_turns(hub, clock, agents)
            rollout = await rolled_out(hub, tmp_path)
            for agent in agents:
                clock.time += 1
                assert b"manifest_sha256" not in await agent.check_in(hub)
            assert b"manifest_sha256" in await Agent(other, 3).check_in(hub)
            assert (hub.fleet().copied, hub.fleet().total, hub.fleet().online) == (1, 2, 2)
        async with hub_inside(tmp_path / "data", clock) as hub:
            view = hub.device(device.name)
            assert [one.run for one in view.copies] == ["00000002", "00000001"]
            only = DeviceFilter(states=("copied",))
            assert [one.name for one in hub.devices(None, 9, only).devices] == [device.name]
            waits = {wait.code for wait in hub.why_rollout(rollout).waits}
            assert WaitCode.COPIED in waits
            assert "edgefleet_copied_devices 1" in hub.metrics()
            assert b"manifest_sha256" not in await agents[0].check_in(hub)
            cleared = await hub.copied.clear(
                hub.row(device.name), ClearCopy(person="ada"), OPERATOR_TOKEN
            )
            assert not cleared.copies
            assert hub.audit(None, 1).entries[0].actor == "ada"
            with pytest.raises(OperatorError, match="device_not_copied"):
                await hub.copied.clear(hub.row(device.name), ClearCopy(), OPERATOR_TOKEN)
            assert b"manifest_sha256" in await agents[0].check_in(hub)
        async with hub_inside(tmp_path / "data", clock) as hub:
            assert hub.fleet().copied == 0
            await take_turns(hub, clock, agents)
            assert hub.fleet().copied == 1
            await hub.device_commands.remove(hub.row(device.name), RemoveDevice(), OPERATOR_TOKEN)
            assert hub.fleet().copied == 0
        async with hub_inside(tmp_path / "data", clock) as hub:
            assert hub.fleet().copied == 0

    asyncio.run(main())
