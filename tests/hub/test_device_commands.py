"""Devices are renamed, removed and found, and the hub says the same after a restart."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from edgefleet.base.errors import OperatorError
from edgefleet.hub.hub import Hub
from edgefleet.protocol.device import OutcomeKind, Phase
from edgefleet.protocol.device_commands import DeviceFilter, RemoveDevice, RenameDevice
from edgefleet.protocol.rollout import Command, RolloutSpec, RolloutView, Verb, WaveSpec
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
from support.tiny_releases import tiny_release

KEY = PublisherKey.generate()
Story = Callable[[Hub, list[InsideDevice]], Awaitable[None]]


def inside(tmp_path: Path, *stories: Story) -> None:
    """Each of the stories on the same store, with a restart before each but the first."""

    async def main() -> None:
        devices: list[InsideDevice] = []
        for story in stories:
            async with hub_inside(tmp_path / "data", ManualClock()) as hub:
                devices = devices or await enrol_inside(hub, 4, site="lyon")
                await story(hub, devices)

    asyncio.run(main())


def names(hub: Hub, **only: object) -> list[str]:
    chosen = DeviceFilter(**only)  # type: ignore[arg-type] # the fields of a filter
    return [view.name for view in hub.devices(None, 100, chosen).devices]


async def rolled_out(hub: Hub, tmp_path: Path, release: str) -> str:
    """A rollout that runs, on every device at once."""
    await publish_inside(hub, KEY, tiny_release(tmp_path / "releases", release))
    spec = RolloutSpec(model="digits", release=release, waves=(WaveSpec(percent=100),))
    rollout = (await hub.plan(spec, OPERATOR_TOKEN)).id
    await hub.command(rollout, Verb.START, Command(), OPERATOR_TOKEN)
    return rollout


def counts(view: RolloutView) -> tuple[int, int, int, int, int]:
    said = view.evidence
    return said.cut, said.healthy, said.failed, said.in_trial, view.exposed


def test_a_removed_device_leaves_every_count(tmp_path: Path) -> None:
    seen: list[tuple[object, ...]] = []

    def all_counts(hub: Hub) -> tuple[object, ...]:
        (view,) = hub.rollouts().rollouts
        fleet = hub.fleet()
        by_hub = hub.health().devices, 'edgefleet_devices{state="online"} 1' in hub.metrics()
        where = fleet.total, fleet.online, fleet.by_profile["generic_x86"]
        return (*counts(view), *where, *by_hub, names(hub))

    async def remove(hub: Hub, devices: list[InsideDevice]) -> None:
        rollout = await rolled_out(hub, tmp_path, "2")
        for number, device in enumerate(devices[:3]):
            said = device.said(outcome(f"s{number}", OutcomeKind.TRIAL_STARTED, rollout))
            await report(hub, device, said)
        for device, kind in (
            (devices[0], OutcomeKind.TRIAL_FAILED),
            (devices[1], OutcomeKind.CONFIRMED),
        ):
            await report(hub, device, device.said(outcome("e", kind, rollout), running="2"))
        assert counts(hub.rollout(rollout)) == (4, 1, 1, 1, 3)
        assert names(hub, states=("failed",)) == ["d000"]
        last = ("failed", "healthy", "trial", "")
        for number, word in enumerate(last[:3]):
            removed = await hub.device_commands.remove(
                hub.row(f"d{number:03}"),
                RemoveDevice(person="alice", note="stolen"),
                OPERATOR_TOKEN,
            )
            assert removed.reports == {rollout: word}
        entry = hub.audit(None, 1).entries[0]
        assert (entry.actor, entry.action, entry.about, entry.detail) == (
            "alice", "remove", "device/d002", "stolen",
        )  # fmt: skip
        await report(hub, devices[3], devices[3].said())
        seen.append(all_counts(hub))
        assert seen[0] == (1, 0, 0, 0, 0, 1, 1, 1, 1, True, ["d003"])
        with pytest.raises(OperatorError, match="no device d000"):
            hub.device("d000")

    async def after(hub: Hub, devices: list[InsideDevice]) -> None:
        await report(hub, devices[3], devices[3].said())
        assert all_counts(hub) == seen[0]
        reply = await check_in(hub, devices[0], devices[0].said())
        assert (reply.status, decode(reply.body, Problem).code) == (401, "device_removed")
        # The name is free for another device, which is not the one that was removed.
        (new,) = await enrol_inside(hub, 1)
        assert (new.name, names(hub)) == ("d000", ["d003", "d000"])
        await report(hub, new, new.said())
        reply = await check_in(hub, devices[0], devices[0].said())
        assert decode(reply.body, Problem).code == "device_removed"

    inside(tmp_path, remove, after)


def test_a_renamed_device_keeps_credential_and_place(tmp_path: Path) -> None:
    async def rename(hub: Hub, devices: list[InsideDevice]) -> None:
        commands = hub.device_commands
        view = await commands.rename(
            hub.row("d001"), RenameDevice(name="door", person="bob"), OPERATOR_TOKEN
        )
        assert view.name == "door"
        entry = hub.audit(None, 1).entries[0]
        assert (entry.about, entry.detail) == ("device/d001", "to door")
        for taken in ("d002", "door"):
            with pytest.raises(OperatorError, match="name_taken"):
                await commands.rename(hub.row("d003"), RenameDevice(name=taken), OPERATOR_TOKEN)
        # Two devices may swap their names.
        await commands.rename(hub.row("d002"), RenameDevice(name="d001"), OPERATOR_TOKEN)
        await commands.rename(hub.row("door"), RenameDevice(name="d002"), OPERATOR_TOKEN)

    async def after(hub: Hub, devices: list[InsideDevice]) -> None:
        assert names(hub) == ["d000", "d002", "d001", "d003"]
        for device, name in zip(devices, names(hub), strict=True):
            before = hub.device(name).last_seen
            await report(hub, device, device.said())
            assert before is None
            assert hub.device(name).last_seen is not None

    async def unique(hub: Hub, devices: list[InsideDevice]) -> None:
        await hub.device_commands.rename(hub.row("d000"), RenameDevice(name="gate"), OPERATOR_TOKEN)
        (new,) = await enrol_inside(hub, 1)
        assert new.name == "d000"
        assert positions(tmp_path) == ["d000", "d000/4", "d001", "d002", "d003"]
        await report(hub, devices[0], devices[0].said())
        assert hub.device("gate").last_seen is not None

    async def after_unique(hub: Hub, devices: list[InsideDevice]) -> None:
        assert names(hub) == ["gate", "d002", "d001", "d003", "d000"]
        await report(hub, devices[0], devices[0].said())

    inside(tmp_path, rename, after, unique, after_unique)


def positions(tmp_path: Path) -> list[str]:
    """The texts from which the positions of the devices come, all of which differ."""
    with sqlite3.connect(tmp_path / "data" / "hub.sqlite") as store:
        return sorted(
            text for (text,) in store.execute("SELECT coalesce(enrolled_as, name) FROM device")
        )


def test_devices_are_found_by_phase_state_and_parts_of_their_names(tmp_path: Path) -> None:
    async def story(hub: Hub, devices: list[InsideDevice]) -> None:
        await report(hub, devices[0], devices[0].said())
        await report(hub, devices[1], devices[1].said(phase=Phase.FETCHING))
        await enrol_inside(hub, 2, prefix="Gate-", site="oslo")
        assert names(hub, states=("online",)) == ["d000", "d001"]
        assert names(hub, states=("offline",), search="D00") == ["d002", "d003"]
        assert names(hub, phase="fetching") == ["d001"]
        assert names(hub, search="OSLO") == ["Gate-000", "Gate-001"]
        assert names(hub, search="gate-001", selector="site=oslo") == ["Gate-001"]
        assert names(hub, states=("online", "quarantined")) == []
        for field, given in (("phase", {"phase": "x"}), ("state", {"states": ("x",)})):
            with pytest.raises(OperatorError) as wrong:
                names(hub, **given)
            assert wrong.value.field == field

    inside(tmp_path, story)
