"""Labels at the hub: durable, bounded, given to their device once, and audited."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from edgefleet.base.errors import OperatorError
from edgefleet.hub import truth as waiting_truth
from edgefleet.hub.hub import Hub
from edgefleet.hub.limits import TRUTH_KEPT_S
from edgefleet.protocol.device import CheckIn, ModelReport, digest
from edgefleet.protocol.labels import (
    LABELS_PER_ANSWER,
    Label,
    LabelReport,
    ModelLabels,
    ModelTruth,
    ReleaseLabels,
)
from edgefleet.protocol.operator import TruthAdded, TruthRequest
from edgefleet.protocol.rollout import Command, GateSpec, RolloutSpec, Verb, WaveSpec
from edgefleet.protocol.version import PROTOCOL
from edgefleet.security.principals import OPERATOR_TOKEN
from edgefleet.security.signing import PublisherKey
from support.hub_inside import (
    InsideDevice,
    ManualClock,
    check_in,
    enrol_inside,
    hub_inside,
    publish_inside,
    report,
)
from support.raw_device import facts
from support.tiny_releases import tiny_release

KEY = PublisherKey.generate()


def run(
    tmp_path: Path, body: Callable[[Hub, InsideDevice], Awaitable[None]], clock: ManualClock
) -> None:
    """``body`` on a hub with one device that serves release 1 of digits and takes labels."""

    async def whole() -> None:
        async with hub_inside(tmp_path / "hub", clock) as hub:
            await publish_inside(hub, KEY, tiny_release(tmp_path, "1"))
            (device,) = await enrol_inside(hub, 1)
            await check_in(hub, device, replace(said(device), facts=takes_labels()))
            await body(hub, device)

    asyncio.run(whole())


def takes_labels(*, takes: bool = True):
    return replace(facts(), takes_labels=takes)


def said(device: InsideDevice, **more: object) -> CheckIn:
    device.seq += 1
    models = (ModelReport(model="digits", release="1"),)
    check_in = CheckIn(
        protocol=PROTOCOL, seq=device.seq, digest=digest(models), models=models, full=True
    )
    return replace(check_in, **more)


def request(*ids: str, device: str = "d000", model: str = "digits") -> TruthRequest:
    labels = tuple(Label(id=one, truth=1) for one in ids)
    return TruthRequest(device=device, model=model, labels=labels, person="alice")


async def given(hub: Hub, device: InsideDevice, **more: object) -> tuple[ModelTruth, ...]:
    return (await report(hub, device, said(device, **more))).truth


def ids(truth: tuple[ModelTruth, ...]) -> list[str]:
    return [one.label.id for one in truth]


def test_a_device_gets_its_labels_until_it_acknowledges_them(tmp_path: Path) -> None:
    async def body(hub: Hub, device: InsideDevice) -> None:
        added = await hub.add_truth(request("a", "b"), OPERATOR_TOKEN)
        assert added == TruthAdded(added=2, waiting=2)
        first = await given(hub, device)
        assert ids(first) == ["a", "b"]
        assert await given(hub, device) == first, "the answer may have been lost"
        assert hub.device("d000").labels_waiting == 2
        assert await given(hub, device, truth_done=first[-1].number) == ()
        assert hub.device("d000").labels_waiting == 0

    run(tmp_path, body, ManualClock())


def test_labels_and_acknowledgements_outlive_a_restart_of_the_hub(tmp_path: Path) -> None:
    clock = ManualClock()
    kept: list[InsideDevice] = []

    async def before(hub: Hub, device: InsideDevice) -> None:
        await hub.add_truth(request("a"), OPERATOR_TOKEN)
        (first,) = await given(hub, device)
        await hub.add_truth(request("b"), OPERATOR_TOKEN)
        assert ids(await given(hub, device, truth_done=first.number)) == ["b"]
        kept.append(device)

    async def after() -> None:
        async with hub_inside(tmp_path / "hub", clock) as hub:
            assert ids(await given(hub, kept[0])) == ["b"]

    run(tmp_path, before, clock)
    asyncio.run(after())


def test_an_answer_has_a_bounded_number_of_labels(tmp_path: Path) -> None:
    async def body(hub: Hub, device: InsideDevice) -> None:
        await hub.add_truth(
            request(*(f"r{number}" for number in range(LABELS_PER_ANSWER + 10))), OPERATOR_TOKEN
        )
        first = await given(hub, device)
        assert len(first) == LABELS_PER_ANSWER
        rest = await given(hub, device, truth_done=first[-1].number)
        assert ids(rest) == [f"r{LABELS_PER_ANSWER + number}" for number in range(10)]

    run(tmp_path, body, ManualClock())


@pytest.mark.parametrize(
    ("wrong", "code", "field"),
    [
        (request("a", device="nobody"), "not_found", None),
        (request("a", model="other"), "not_found", "model"),
        (replace(request("a"), labels=(Label(truth=1),)), "bad_request", "labels[0]"),
    ],
)
def test_a_wrong_request_stores_nothing(
    tmp_path: Path, wrong: TruthRequest, code: str, field: str | None
) -> None:
    async def body(hub: Hub, device: InsideDevice) -> None:
        with pytest.raises(OperatorError) as caught:
            await hub.add_truth(wrong, OPERATOR_TOKEN)
        assert (caught.value.code, caught.value.field) == (code, field)
        assert await given(hub, device) == ()

    run(tmp_path, body, ManualClock())


def test_an_agent_that_takes_no_labels_is_named(tmp_path: Path) -> None:
    async def body(hub: Hub, device: InsideDevice) -> None:
        await check_in(hub, device, said(device, facts=takes_labels(takes=False)))
        with pytest.raises(OperatorError, match="takes no labels") as caught:
            await hub.add_truth(request("a"), OPERATOR_TOKEN)
        assert caught.value.code == "labels_unsupported"

    run(tmp_path, body, ManualClock())


@pytest.mark.parametrize(
    ("limit", "text"), [("TRUTH_PER_DEVICE", "the device"), ("TRUTH_WAITING", "all devices")]
)
def test_labels_that_wait_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, text: str
) -> None:
    monkeypatch.setattr(waiting_truth, limit, 3)

    async def body(hub: Hub, device: InsideDevice) -> None:
        await hub.add_truth(request("a", "b"), OPERATOR_TOKEN)
        with pytest.raises(
            OperatorError, match=f"2 labels of {text} waiting, and 2 new; at most 3"
        ) as no:
            await hub.add_truth(request("c", "d"), OPERATOR_TOKEN)
        assert (no.value.code, no.value.field) == ("too_many_labels", "labels")
        assert ids(await given(hub, device)) == ["a", "b"]

    run(tmp_path, body, ManualClock())


def test_labels_of_a_device_that_does_not_come_are_dropped(tmp_path: Path) -> None:
    clock = ManualClock()

    async def body(hub: Hub, device: InsideDevice) -> None:
        await hub.add_truth(request("a"), OPERATOR_TOKEN)
        clock.time += TRUTH_KEPT_S + 1
        await hub.add_truth(request("b"), OPERATOR_TOKEN)
        assert ids(await given(hub, device)) == ["b"]

    run(tmp_path, body, clock)


def test_the_audit_log_names_person_device_and_number(tmp_path: Path) -> None:
    async def body(hub: Hub, _device: InsideDevice) -> None:
        await hub.add_truth(request("a", "b"), OPERATOR_TOKEN)
        entry = hub.audit(None, 1).entries[0]
        assert (entry.actor, entry.action, entry.about) == ("alice", "add_truth", "device/d000")
        assert entry.detail == "2 labels for digits"

    run(tmp_path, body, ManualClock())


def test_the_counts_of_a_device_reach_view_and_metrics(tmp_path: Path) -> None:
    async def body(hub: Hub, device: InsideDevice) -> None:
        await publish_inside(hub, KEY, tiny_release(tmp_path, "2"))
        waves = (WaveSpec(percent=100),)
        for release in ("1", "2"):
            spec = RolloutSpec(
                model="digits", release=release, waves=waves, gate=GateSpec(soak_s=0), bake_s=0
            )
            view = await hub.plan(spec, OPERATOR_TOKEN)
            await hub.command(view.id, Verb.START, Command(), OPERATOR_TOKEN)
            if release == "1":
                await hub.command(view.id, Verb.ADVANCE, Command(), OPERATOR_TOKEN)
        counts = LabelReport(
            epoch=1,
            models=(
                ModelLabels(
                    model="digits",
                    unmatched=2,
                    releases=(
                        ReleaseLabels(release="1", labelled=10, correct=9),
                        ReleaseLabels(release="2", labelled=4, correct=2),
                    ),
                ),
            ),
        )
        for _ in range(2):  # a report that arrives twice counts once
            await given(hub, device, labels=counts)
        text = hub.rollout(view.id).evidence.labels.text
        assert text == "50 % of 4 labels, control 90 % of 10 labels; 2 labels found no answer"
        metrics = hub.metrics()
        sample = f'edgefleet_rollout_labelled{{rollout="{view.id}",side="control"}} 10'
        assert sample in metrics
        assert "edgefleet_labels_waiting 0" in metrics

    run(tmp_path, body, ManualClock())
