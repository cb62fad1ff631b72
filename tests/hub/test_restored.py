"""A hub that was restored from an older copy: devices ahead of it, and devices it does not know."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from edgefleet.base.errors import DeviceError
from edgefleet.hub.hub import Hub
from edgefleet.protocol.device import CheckIn, ModelReport, Outcome, OutcomeKind, Phase, digest
from edgefleet.protocol.device_commands import DeviceFilter, RemoveDevice
from edgefleet.protocol.operator import DeviceView
from edgefleet.protocol.restored import AcceptRestored, ReenrolRequest
from edgefleet.protocol.rollout import Command, RolloutSpec, Verb, WaveSpec
from edgefleet.protocol.version import PROTOCOL
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
    outcome,
    publish_inside,
    report,
)
from support.raw_device import facts
from support.tiny_releases import tiny_release

KEY = PublisherKey.generate()
Story = Callable[[Hub, list[InsideDevice]], Awaitable[None]]


def full(device: InsideDevice, release: str | None, rollout: str, *outcomes: Outcome) -> CheckIn:
    """A full list: the device runs the release, which the rollout gave it."""
    device.seq += 1
    models = (ModelReport(model="digits", release=release),) if release else ()
    return CheckIn(
        protocol=PROTOCOL,
        seq=device.seq,
        digest=digest(models),
        models=models,
        full=True,
        given=(("digits", rollout),) if release and rollout else (),
        outcomes=outcomes,
    )


async def rolled_out(
    hub: Hub, tmp_path: Path, release: str, percents: tuple[int, ...] = (100,)
) -> str:
    """A rollout that an operator advances."""
    await publish_inside(hub, KEY, tiny_release(tmp_path / "releases", release))
    spec = RolloutSpec(
        model="digits",
        release=release,
        waves=tuple(WaveSpec(percent=one) for one in percents),
        bake_s=0,
    )
    rollout = (await hub.plan(spec, OPERATOR_TOKEN)).id
    await hub.command(rollout, Verb.START, Command(), OPERATOR_TOKEN)
    return rollout


async def install(hub: Hub, device: InsideDevice, release: str, rollout: str) -> None:
    name = f"{device.name}-{release}"
    start = outcome(f"{name}-s", OutcomeKind.TRIAL_STARTED, rollout, release)
    await report(hub, device, full(device, None, "", start))
    confirmed = outcome(f"{name}-c", OutcomeKind.CONFIRMED, rollout, release)
    await report(hub, device, full(device, release, rollout, confirmed))


def restored(tmp_path: Path, before: Story, lost: Story, *after: Story) -> None:
    """``before`` is in the copy from which the hub is restored, ``lost`` is not."""

    async def main() -> None:
        data, copy, clock = tmp_path / "data", tmp_path / "copy", ManualClock()
        devices: list[InsideDevice] = []
        for number, story in enumerate((before, lost, *after)):
            if number == 2:
                shutil.rmtree(data)
                shutil.copytree(copy, data)
            async with hub_inside(data, clock) as hub:
                devices = devices or await enrol_inside(hub, 3)
                await story(hub, devices)
                await hub.flush()
            if number == 0:
                shutil.copytree(data, copy)
            clock.time += 60

    asyncio.run(main())


def ahead(hub: Hub) -> list[str]:
    only = DeviceFilter(states=("ahead",))
    views: tuple[DeviceView, ...] = hub.devices(None, 10, only).devices
    assert hub.fleet().ahead == len(views)
    return [view.name for view in views]


def test_a_rollout_that_the_hub_lost_is_not_undone_before_an_operator_says_so(
    tmp_path: Path,
) -> None:
    made: list[str] = []

    async def before(hub: Hub, devices: list[InsideDevice]) -> None:
        made.append(await rolled_out(hub, tmp_path, "1"))
        for device in devices:
            await install(hub, device, "1", made[0])
        await hub.command(made[0], Verb.ADVANCE, Command(), OPERATOR_TOKEN)

    async def lost(hub: Hub, devices: list[InsideDevice]) -> None:
        made.append(await rolled_out(hub, tmp_path, "2"))
        await install(hub, devices[0], "2", made[1])

    async def held(hub: Hub, devices: list[InsideDevice]) -> None:
        for device, release in zip(devices[:2], ("2", "1"), strict=True):
            rollout = made[int(release) - 1]
            said = await report(hub, device, full(device, release, rollout))
            assert not said.offers
            said = await report(hub, device, replace(full(device, release, ""), full=False))
            assert not said.offers
        assert ahead(hub) == ["d000"]
        assert WaitCode.AHEAD in {wait.code for wait in hub.why_device("d000").waits}

    async def accepted(hub: Hub, devices: list[InsideDevice]) -> None:
        assert ahead(hub) == ["d000"]  # also after another restart
        answer = await hub.restored.accept(AcceptRestored(person="alice"), OPERATOR_TOKEN)
        assert (answer.devices, ahead(hub)) == (1, [])
        assert hub.audit(None, 1).entries[0].actor == "alice"
        # A device that comes back later is accepted as well, and is offered what the hub has.
        said = await report(hub, devices[0], full(devices[0], "2", made[1]))
        assert [offer.release for offer in said.offers] == ["1"]
        assert ahead(hub) == []

    restored(tmp_path, before, lost, held, accepted)


LATE = (Phase.IDLE, Phase.TRIAL)


@pytest.mark.parametrize("phase", LATE)
@pytest.mark.parametrize("is_full", [True, False], ids=["full", "changed"])
def test_a_wave_that_the_hub_lost_is_not_undone(
    tmp_path: Path, phase: Phase, *, is_full: bool
) -> None:
    """The rollout is known, its second wave is not. The confirmation is still in the spool."""
    made: list[str] = []
    late: list[InsideDevice] = []

    async def before(hub: Hub, devices: list[InsideDevice]) -> None:
        made.append(await rolled_out(hub, tmp_path, "1"))
        for device in devices:
            await install(hub, device, "1", made[0])
        await hub.command(made[0], Verb.ADVANCE, Command(), OPERATOR_TOKEN)
        made.append(await rolled_out(hub, tmp_path, "2", percents=(1, 100)))

    async def lost(hub: Hub, devices: list[InsideDevice]) -> None:
        for device in devices:
            said = await report(hub, device, full(device, "1", made[0]))
            if not said.offers:
                late.append(device)
            else:
                await install(hub, device, "2", made[1])
        await hub.command(made[1], Verb.ADVANCE, Command(), OPERATOR_TOKEN)
        start = outcome("s", OutcomeKind.TRIAL_STARTED, made[1], "2")
        await report(hub, late[0], full(late[0], "1", made[0], start))

    async def held(hub: Hub, devices: list[InsideDevice]) -> None:
        device = late[0]
        outcomes = (outcome("c", OutcomeKind.CONFIRMED, made[1], "2"),) * (phase is Phase.IDLE)
        first = full(device, "2", made[1], *outcomes)
        models = (replace(first.models[0], phase=phase),)
        first = replace(first, models=models, digest=digest(models), full=is_full)
        said = await report(hub, device, first)
        assert not said.offers
        device.seq += 1
        heartbeat = CheckIn(protocol=PROTOCOL, seq=device.seq, digest=first.digest)
        assert not (await report(hub, device, heartbeat)).offers
        assert device.name in ahead(hub)
        assert late[1].name not in ahead(hub)

    async def went_back(hub: Hub, devices: list[InsideDevice]) -> None:
        """The device goes back by itself: what it runs then is known."""
        for full_list in (False, True):
            said = replace(full(late[0], "1", made[0]), full=full_list)
            assert not (await report(hub, late[0], said)).want
            assert late[0].name not in ahead(hub)

    restored(tmp_path, before, lost, held, went_back)


def test_outcomes_that_the_hub_lost_are_recorded_from_the_reports(tmp_path: Path) -> None:
    made: list[str] = []

    async def before(hub: Hub, devices: list[InsideDevice]) -> None:
        made.append(await rolled_out(hub, tmp_path, "1"))
        await install(hub, devices[0], "1", made[0])

    async def lost(hub: Hub, devices: list[InsideDevice]) -> None:
        await install(hub, devices[1], "1", made[0])

    async def after(hub: Hub, devices: list[InsideDevice]) -> None:
        for device in devices[:2]:
            await report(hub, device, full(device, "1", made[0]))
        assert ahead(hub) == ["d001"]
        waits = hub.why_rollout(made[0]).waits
        assert [wait.first for wait in waits if wait.code is WaitCode.AHEAD] == [("d001",)]
        await hub.restored.accept(AcceptRestored(), OPERATOR_TOKEN)
        assert hub.rollout(made[0]).evidence.healthy == 2
        assert hub.rollout(made[0]).exposed == 2

    async def again(hub: Hub, devices: list[InsideDevice]) -> None:
        assert hub.rollout(made[0]).exposed == 2

    restored(tmp_path, before, lost, after, again)


def test_a_device_that_the_hub_does_not_know_enrols_again_once_it_is_allowed(
    tmp_path: Path,
) -> None:
    new: list[InsideDevice] = []
    request = ReenrolRequest(protocol=PROTOCOL, facts=facts(), labels={"site": "lyon"})

    async def before(hub: Hub, devices: list[InsideDevice]) -> None:
        await hub.device_commands.remove(hub.row("d002"), RemoveDevice(), OPERATOR_TOKEN)

    async def lost(hub: Hub, devices: list[InsideDevice]) -> None:
        new.extend(await enrol_inside(hub, 1, prefix="new-"))

    async def after(hub: Hub, devices: list[InsideDevice]) -> None:
        # Another device has the row of the unknown device by now.
        (other,) = await enrol_inside(hub, 1, prefix="other-")
        reply = await check_in(hub, new[0], new[0].said())
        assert decode(reply.body, Problem).code == "device_unknown"
        assert hub.fleet().unknown_devices == ("new-000",)
        bearer = f"Bearer {new[0].token}"
        with pytest.raises(DeviceError, match="reenrolment_not_allowed"):
            await hub.reenrol(bearer, request, None)
        await hub.restored.accept(AcceptRestored(), OPERATOR_TOKEN)
        answer = await hub.reenrol(bearer, request, None)
        assert (answer.device, answer.token == new[0].token) == ("new-000", False)
        assert hub.device("new-000").labels == {"site": "lyon"}
        assert hub.fleet().unknown_devices == ()
        await report(hub, InsideDevice("new-000", answer.token), new[0].said(phase=Phase.IDLE))
        await report(hub, other, other.said())
        # A removed device stays removed, and a credential of another hub is none.
        for token, code in ((devices[2].token, "device_removed"), ("efd1.9.x.y", "credential")):
            with pytest.raises(DeviceError, match=code):
                await hub.reenrol(f"Bearer {token}", request, None)

    restored(tmp_path, before, lost, after)
