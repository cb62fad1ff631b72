"""The history of a device: attempts with their ends, causes and durations, as it reported them."""

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace

from edgefleet.base.errors import OperatorError
from edgefleet.hub import hub as hub_module
from edgefleet.protocol.device import OutcomeKind
from edgefleet.protocol.operator import DeviceAttempt
from edgefleet.protocol.rollout import Command, RolloutSpec, Verb, WaveSpec
from edgefleet.security.principals import OPERATOR_TOKEN
from edgefleet.security.signing import PublisherKey
from support.hub_inside import enrol_inside, hub_inside, outcome, publish_inside, report
from support.tiny_releases import tiny_release

KEY = PublisherKey.generate()
WORDS = "Mean confidence fell from 0.960 to 0.400 over 50 scores (limit 0.860)."


def test_attempts_have_end_cause_and_duration_and_survive_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "DEVICE_REPORTS", 4)
    refused = replace(
        outcome("d", OutcomeKind.DEFERRED, "", "2"), at=10.0, attempt=2, reason="disk_full"
    )
    began = replace(outcome("s", OutcomeKind.TRIAL_STARTED, "", "2"), at=100.0, attempt=3)
    failed = replace(
        outcome("f", OutcomeKind.TRIAL_FAILED, "", "2"),
        at=133.5, attempt=3, reason="confidence_drop", detail=WORDS,
    )  # fmt: skip

    async def main() -> None:
        async with hub_inside(tmp_path / "data") as hub:
            first, other = await enrol_inside(hub, 2)
            await publish_inside(hub, KEY, tiny_release(tmp_path, "2"))
            plan = RolloutSpec(model="digits", release="2", waves=(WaveSpec(percent=100),))
            view = await hub.plan(plan, OPERATOR_TOKEN)
            await hub.command(view.id, Verb.START, Command(), OPERATOR_TOKEN)
            for said in (refused, began, failed):
                await report(hub, first, first.said(replace(said, rollout=view.id)))
            before = hub.device_history(first.name)
            assert [shown(one) for one in before.attempts] == [
                ("digits", "2", 3, "trial_failed", "confidence dropped", WORDS, 33.5),
                ("digits", "2", 2, "deferred", "disk full", "", None),
            ]
            assert all(one.began_at <= one.at for one in before.attempts)
            assert hub.device_history(other.name).attempts == ()
            with pytest.raises(OperatorError, match="no device"):
                hub.device_history("nobody")
        async with hub_inside(tmp_path / "data") as hub:
            assert hub.device_history(first.name) == before
            assert not before.is_cut
            monkeypatch.setattr(hub_module, "DEVICE_REPORTS", 2)
            cut = hub.device_history(first.name)
            assert cut.is_cut
            assert cut.attempts == before.attempts[:1]

    asyncio.run(main())


def shown(one: DeviceAttempt) -> tuple[object, ...]:
    return (one.model, one.release, one.attempt, one.kind, one.cause, one.detail, one.duration_s)
