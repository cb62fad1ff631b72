"""Protocol 3 at the hub: several models on a device, and protocol 2 beside it."""

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from edgefleet.base.errors import OperatorError
from edgefleet.base.limits import MODELS_PER_DEVICE
from edgefleet.hub.hub import Hub
from edgefleet.protocol.device import (
    CheckIn,
    CheckInAnswer,
    Isolation,
    IsolationReason,
    ModelReport,
    Phase,
    digest,
)
from edgefleet.protocol.device_commands import DeviceFilter
from edgefleet.protocol.operator import DeviceModel
from edgefleet.protocol.rollout import Command, RolloutSpec, Verb, WaveSpec
from edgefleet.protocol.version import PROTOCOL
from edgefleet.rollout.fleet.device_models import DeviceModels
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
from support.tiny_releases import TinyRelease, tiny_release

KEY = PublisherKey.generate()
DIGITS = ModelReport(model="digits", release="1")
DETECTOR = ModelReport(model="detector", release="1")


def release(tmp_path: Path, model: str, name: str) -> TinyRelease:
    return tiny_release(tmp_path, name).but(model=model)


def sent(
    device: InsideDevice,
    *models: ModelReport,
    has: tuple[ModelReport, ...],
    full: bool = False,
) -> CheckIn:
    """A check-in with ``models`` of a device that has the models ``has``."""
    device.seq += 1
    return CheckIn(protocol=PROTOCOL, seq=device.seq, digest=digest(has), models=models, full=full)


async def start(hub: Hub, model: str, name: str) -> str:
    spec = RolloutSpec(model=model, release=name, waves=(WaveSpec(percent=100),))
    view = await hub.plan(spec, OPERATOR_TOKEN)
    await hub.command(view.id, Verb.START, Command(), OPERATOR_TOKEN)
    return view.id


def inside(tmp_path: Path, body: Callable[[Hub, list[InsideDevice]], Any]) -> None:
    async def main() -> None:
        async with hub_inside(tmp_path / "data") as hub:
            devices = await enrol_inside(hub, 2)
            for model in ("digits", "detector"):
                await publish_inside(hub, KEY, release(tmp_path, model, "1"))
            await body(hub, devices)

    asyncio.run(main())


def test_each_protocol_gets_the_answer_that_it_can_read(tmp_path: Path) -> None:
    async def run(hub: Hub, devices: list[InsideDevice]) -> None:
        new, old = devices
        rollouts = [await start(hub, model, "1") for model in ("detector", "digits")]
        answer = await report(hub, new, sent(new, has=()))
        assert [offer.rollout for offer in answer.offers] == rollouts, "the oldest first"
        assert (answer.offer, answer.want) == (None, "")
        answer = await report(hub, old, old.said())
        assert answer.offer is not None
        assert (answer.offer.rollout, answer.offers) == (rollouts[0], ())

    inside(tmp_path, run)


def test_an_answer_with_nothing_to_say_is_short(tmp_path: Path) -> None:
    async def run(hub: Hub, devices: list[InsideDevice]) -> None:
        device = devices[0]
        reply = await check_in(hub, device, sent(device, DIGITS, has=(DIGITS,), full=True))
        assert json.loads(reply.body) == {"interval_s": hub.settings.interval_s}

    inside(tmp_path, run)


def test_the_device_view_lists_each_model(tmp_path: Path) -> None:
    async def run(hub: Hub, devices: list[InsideDevice]) -> None:
        device = devices[0]
        rollout = await start(hub, "digits", "1")
        trial = ModelReport(model="digits", release="1", phase=Phase.TRIAL)
        await report(hub, device, sent(device, DETECTOR, trial, has=(DETECTOR, trial)))
        assert hub.device(device.name).models == (
            DeviceModel(
                model="detector", release="1", phase="idle", desired=None, rollout=None,
                memory_limit_mib=512,
                line="No rollout covers this device; it runs release 1 of detector.",
            ),
            DeviceModel(
                model="digits", release="1", phase="trial", desired="1", rollout=rollout,
                memory_limit_mib=512,
                line=f"This device runs release 1 of digits, as rollout {rollout} wants.",
            ),
        )  # fmt: skip
        assert hub.fleet().on_release == {"detector": {"1": 1}, "digits": {"1": 1}}
        why = hub.why_device(device.name)
        assert [(wait.model, wait.code.value) for wait in why.waits] == [
            ("detector", "no_rollout"),
            ("digits", "done"),
        ]

    inside(tmp_path, run)


def test_the_device_view_says_why_a_model_has_a_process_of_its_own(tmp_path: Path) -> None:
    named = tuple(
        Isolation(model=model, reason=IsolationReason.CRASHED_TWICE)
        for model in ("digits", "elsewhere")
    )

    async def run(hub: Hub, devices: list[InsideDevice]) -> None:
        device = devices[0]
        told = sent(device, DETECTOR, DIGITS, has=(DETECTOR, DIGITS))
        await report(hub, device, replace(told, facts=replace(facts(), isolated=named)))
        detector, digits = hub.device(device.name).models
        assert (detector.isolation, detector.isolation_text) == ("", "")
        assert (digits.model, digits.isolation) == ("digits", "crashed_twice")
        assert "it crashed the shared serving process twice" in digits.isolation_text
        await report(hub, device, replace(sent(device, has=(DETECTOR, DIGITS)), facts=facts()))
        assert [one.isolation for one in hub.device(device.name).models] == ["", ""]

    inside(tmp_path, run)


def test_devices_are_found_by_what_they_run_and_rollouts_by_model(tmp_path: Path) -> None:
    async def run(hub: Hub, devices: list[InsideDevice]) -> None:
        both, one = devices
        await publish_inside(hub, KEY, release(tmp_path, "detector", "2"))
        await report(hub, both, sent(both, DETECTOR, DIGITS, has=(DETECTOR, DIGITS)))
        await report(hub, one, sent(one, DIGITS, has=(DIGITS,)))

        def names(runs: str, *, after: str | None = None) -> list[str]:
            return [view.name for view in hub.devices(after, 9, DeviceFilter(runs=runs)).devices]

        assert names("digits") == names("digits:1") == names("") == [both.name, one.name]
        first = hub.devices(None, 1, DeviceFilter(runs="digits"))
        assert names("digits", after=first.next) == [one.name]
        assert names("detector") == names("detector:1") == [both.name]
        assert names("detector:2") == []
        for unknown in ("ocr", "detector:9"):
            with pytest.raises(OperatorError) as caught:
                hub.devices(None, 9, DeviceFilter(runs=unknown))
            assert (caught.value.code, caught.value.field) == ("not_found", "runs")
        rollouts = {model: await start(hub, model, "1") for model in ("detector", "digits")}
        for model, rollout in rollouts.items():
            assert [view.id for view in hub.rollouts(model).rollouts] == [rollout]
        assert len(hub.rollouts().rollouts) == 2
        with pytest.raises(OperatorError, match="no model ocr"):
            hub.rollouts("ocr")

    inside(tmp_path, run)


def test_a_device_with_an_unknown_set_is_shown(tmp_path: Path) -> None:
    async def run(hub: Hub, devices: list[InsideDevice]) -> None:
        device = devices[0]
        every = [DIGITS]
        for number in range(2, MODELS_PER_DEVICE + 2):
            name = f"m{number:02}"
            await publish_inside(hub, KEY, release(tmp_path, name, "1"))
            every.append(ModelReport(model=name, release="1"))
        for one in every:
            await report(hub, device, sent(device, one, has=(one,)))
        view = hub.device(device.name)
        assert (view.unknown_set, view.models) == (True, ())
        assert [wait.code.value for wait in hub.why_device(device.name).waits] == ["unknown_set"]
        assert (hub.fleet().unknown_sets, hub.fleet().online) == (1, 1)
        assert hub.devices(None, 9, DeviceFilter(runs="digits")).devices == ()

    inside(tmp_path, run)


def restored(tmp_path: Path) -> list[str]:
    """The wishes of a hub to a device, check-in by check-in, after it went back to a backup."""
    wants: list[str] = []

    async def main() -> None:
        clock = ManualClock()
        async with hub_inside(tmp_path / "data", clock) as hub:
            (device,) = await enrol_inside(hub, 1)
            for model in ("digits", "detector"):
                await publish_inside(hub, KEY, release(tmp_path, model, "1"))
            await report(hub, device, sent(device, DIGITS, has=(DIGITS,)))
            await hub.flush()
        shutil.copytree(tmp_path / "data", tmp_path / "backup")
        both = (DETECTOR, DIGITS)
        async with hub_inside(tmp_path / "data", clock) as hub:
            answer = await report(hub, device, sent(device, DETECTOR, has=both))
            assert answer.want == ""
        async with hub_inside(tmp_path / "backup", clock) as hub:
            device.seq += 100
            for _ in range(4):
                full = bool(wants) and wants[-1] == "models"
                models = both if full else ()
                answer: CheckInAnswer = await report(
                    hub, device, sent(device, *models, has=both, full=full)
                )
                wants.append(answer.want)
            assert [one.model for one in hub.device(device.name).models] == ["detector", "digits"]

    asyncio.run(main())
    return wants


def test_a_hub_restored_from_a_backup_asks_each_device_once(tmp_path: Path) -> None:
    assert restored(tmp_path) == ["models", "", "", ""]


def test_a_digest_that_is_never_compared_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DeviceModels, "digest_differs", lambda *_: False)
    with pytest.raises(AssertionError):
        restored(tmp_path)


def test_models_of_a_device_are_known_after_a_restart(tmp_path: Path) -> None:
    clock = ManualClock()
    trial = ModelReport(model="digits", release="1", phase=Phase.TRIAL)

    async def main() -> None:
        async with hub_inside(tmp_path / "data", clock) as hub:
            new, old = await enrol_inside(hub, 2)
            for model in ("digits", "detector"):
                await publish_inside(hub, KEY, release(tmp_path, model, "1"))
            await report(hub, new, sent(new, DETECTOR, trial, has=(DETECTOR, trial)))
            await report(hub, old, old.said(running="1"))
            before = [hub.device(device.name).models for device in (new, old)]
        async with hub_inside(tmp_path / "data", clock) as hub:
            assert [hub.device(device.name).models for device in (new, old)] == before
            spec = RolloutSpec(model="detector", release="1", skip_ineligible=True)
            view = await hub.plan(spec, OPERATOR_TOKEN)
            found = hub.plan_fleet(replace(spec, release="1", model="digits"))
            assert (found.adds, found.had_model, found.ineligible) == (0, 2, {})
            assert view.ineligible == {"agent_one_model": 1}, "the protocol is known, too"
            answer = await report(hub, new, sent(new, has=(DETECTOR, trial)))
            assert answer.want == ""

    asyncio.run(main())


def test_what_the_hub_has_not_published_counts_as_none_and_is_asked_for_once(
    tmp_path: Path,
) -> None:
    async def run(hub: Hub, devices: list[InsideDevice]) -> None:
        device = devices[0]
        mine = (DIGITS, ModelReport(model="detector", release="9"), ModelReport(model="mine"))
        mine = (*mine[:2], ModelReport(model="mine", release="1"))
        assert (await report(hub, device, sent(device, *mine, has=mine))).want == "models"
        assert (await report(hub, device, sent(device, *mine, has=mine, full=True))).want == ""
        assert (await report(hub, device, sent(device, has=mine))).want == ""
        assert [(one.model, one.release) for one in hub.device(device.name).models] == [
            ("digits", "1")
        ]
        await publish_inside(hub, KEY, release(tmp_path, "detector", "9"))
        assert (await report(hub, device, sent(device, has=mine))).want == "models"
        await report(hub, device, sent(device, *mine, has=mine, full=True))
        assert hub.fleet().on_release == {"digits": {"1": 1}, "detector": {"9": 1}}

    inside(tmp_path, run)


def test_a_list_that_is_too_long_is_refused(tmp_path: Path) -> None:
    async def run(hub: Hub, devices: list[InsideDevice]) -> None:
        many = tuple(ModelReport(model=f"m{number}", release="1") for number in range(17))
        reply = await check_in(hub, devices[0], sent(devices[0], *many, has=many))
        assert json.loads(reply.body)["code"] == "checkin_malformed"

    inside(tmp_path, run)
