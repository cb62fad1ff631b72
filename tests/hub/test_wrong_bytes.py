"""Devices tell the hub of the same wrong bytes: the rollout ends, also over a restart of the hub."""

import asyncio
from pathlib import Path

from msgspec.structs import replace

from edgefleet.hub.hub import Hub
from edgefleet.protocol.device import OutcomeKind, Reason, WrongBytes
from edgefleet.protocol.rollout import Command, RolloutSpec, Status, Verb, WaveSpec
from edgefleet.security.principals import OPERATOR_TOKEN
from edgefleet.security.signing import PublisherKey
from support.hub_inside import (
    InsideDevice,
    ManualClock,
    enrol_inside,
    hub_inside,
    outcome,
    publish_inside,
    report,
)
from support.tiny_releases import tiny_release

FOUND = "f" * 64


async def defer(hub: Hub, device: InsideDevice, rollout: str, expected: str) -> None:
    told = replace(
        outcome(f"{device.name}-deferral", OutcomeKind.DEFERRED, rollout, "1"),
        reason=Reason.TRANSFER,
        wrong_bytes=WrongBytes(expected=expected, found=FOUND),
    )
    await report(hub, device, device.said(told))


def test_three_devices_end_the_rollout_of_a_damaged_artifact(tmp_path: Path) -> None:
    async def main() -> None:
        async with hub_inside(tmp_path / "data", ManualClock()) as hub:
            devices = await enrol_inside(hub, 3)
            await publish_inside(hub, PublisherKey.generate(), tiny_release(tmp_path, "1"))
            for device in devices:
                await report(hub, device, device.said())
            spec = RolloutSpec(model="digits", release="1", waves=(WaveSpec(percent=100),))
            rollout = (await hub.plan(spec, OPERATOR_TOKEN)).id
            await hub.command(rollout, Verb.START, Command(), OPERATOR_TOKEN)
            (variant,) = hub.registry.release("digits", "1").manifest.variants
            expected = variant.artifact.sha256
            for device in devices[:2]:
                await defer(hub, device, rollout, expected)
            await hub.loop.tick()
            assert hub.rollout(rollout).status is Status.RUNNING
        async with hub_inside(tmp_path / "data", ManualClock()) as hub:
            await defer(hub, devices[2], rollout, expected)
            await hub.loop.tick()
            view = hub.rollout(rollout)
            assert (view.status, view.reason) == (Status.REFUSED, "refused_by_devices")
            assert f"SHA-256 {expected} expected, {FOUND} found" in view.text
            assert view.evidence.damaged == 3

    asyncio.run(main())
