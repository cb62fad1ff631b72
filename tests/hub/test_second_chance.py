"""A second chance at a real hub: it is planned with a reason, which the audit log keeps."""

import asyncio
from pathlib import Path

import pytest

from edgefleet.base.errors import OperatorError
from edgefleet.protocol.device import OutcomeKind
from edgefleet.protocol.rollout import Command, RolloutSpec, Status, Verb, WaveSpec
from edgefleet.security.principals import OPERATOR_TOKEN
from edgefleet.security.signing import PublisherKey
from support.hub_inside import enrol_inside, hub_inside, outcome, publish_inside, report
from support.tiny_releases import tiny_release

KEY = PublisherKey.generate()


def test_a_second_chance_is_in_the_audit_log_and_survives_a_restart(tmp_path: Path) -> None:
    async def main() -> None:
        async with hub_inside(tmp_path / "data") as hub:
            devices = await enrol_inside(hub, 2)
            await publish_inside(hub, KEY, tiny_release(tmp_path, "2"))
            plan = RolloutSpec(model="digits", release="2", waves=(WaveSpec(percent=100),))
            view = await hub.plan(plan, OPERATOR_TOKEN)
            await hub.command(view.id, Verb.START, Command(), OPERATOR_TOKEN)
            for device in devices:
                for kind in (OutcomeKind.TRIAL_STARTED, OutcomeKind.TRIAL_FAILED):
                    await report(hub, device, device.said(outcome(f"{kind}", kind, view.id, "2")))
            await hub.loop.tick()
            await hub.loop.tick()
            assert hub.rollout(view.id).status in (Status.REVERTED, Status.REVERTING)
            await hub.loop.tick()
        async with hub_inside(tmp_path / "data") as hub:
            with pytest.raises(OperatorError) as caught:
                await hub.plan(RolloutSpec(model="digits", release="2"), OPERATOR_TOKEN)
            assert caught.value.code == "release_failed_before"
            wanted = RolloutSpec(model="digits", release="2", again="a new power supply")
            second = await hub.plan(wanted, OPERATOR_TOKEN)
            lines = hub.audit(None, 2).entries
            assert [(line.actor, line.action, line.about, line.detail) for line in lines] == [
                (
                    "operator",
                    "again",
                    f"rollout/{second.id}",
                    'Release 2 gets a second chance: "a new power supply".',
                ),
                ("operator", "plan", f"rollout/{second.id}", "digits 2 to every device"),
            ]

    asyncio.run(main())
