"""Changes of rollouts are serialized, even if a caller is cancelled."""

import asyncio
from pathlib import Path

import pytest

from edgefleet.base.errors import OperatorError
from edgefleet.protocol.device import OutcomeKind
from edgefleet.protocol.rollout import Command, GateSpec, RolloutSpec, Status, Verb, WaveSpec
from edgefleet.security.principals import OPERATOR_TOKEN
from edgefleet.security.signing import PublisherKey
from support.hub_inside import (
    ManualClock,
    SlowDisk,
    enrol_inside,
    hub_inside,
    outcome,
    publish_inside,
    report,
    settle,
)
from support.tiny_releases import tiny_release

GATE = GateSpec(soak_s=0, min_sample=1, confirm_after_s=0)


def test_a_look_that_is_cancelled_while_it_is_written_holds_before_the_next_verb(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        clock, disk = ManualClock(), SlowDisk()
        async with hub_inside(tmp_path / "hub", clock, open_store=disk.open_store) as hub:
            devices = await enrol_inside(hub, 3)
            await publish_inside(hub, PublisherKey.generate(), tiny_release(tmp_path / "r1"))
            spec = RolloutSpec(
                model="digits", release="1", waves=(WaveSpec(percent=100),), gate=GATE
            )
            rollout = (await hub.plan(spec, OPERATOR_TOKEN)).id
            await hub.command(rollout, Verb.START, Command(), OPERATOR_TOKEN)
            for device in devices:
                said = outcome(device.name, OutcomeKind.CONFIRMED, rollout, "1")
                await report(hub, device, device.said(said, running="1"))
            clock.time += 5
            async with disk.blocked():
                look = asyncio.create_task(hub.loop.tick())
                await settle()
                pause = asyncio.create_task(
                    hub.command(rollout, Verb.PAUSE, Command(), OPERATOR_TOKEN)
                )
                await settle()
                look.cancel()
                await settle()
                assert look.cancelled()
                assert not pause.done()
            with pytest.raises(OperatorError) as refused:
                await pause
            assert refused.value.code == "verb_not_now"
            assert hub.rollout(rollout).status is Status.COMPLETED
        async with hub_inside(tmp_path / "hub", clock) as hub:
            assert hub.rollout(rollout).status is Status.COMPLETED

    asyncio.run(main())
