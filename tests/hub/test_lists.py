"""Lists come in pages with opaque cursors, and devices are selected by their properties."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from edgefleet.base.errors import OperatorError
from edgefleet.hub.agent_versions import AgentVersions
from edgefleet.hub.cursors import cursor, read_number
from edgefleet.hub.hub import Hub
from edgefleet.protocol.device import OutcomeKind
from edgefleet.protocol.device_commands import (
    STANDINGS,
    DeviceFilter,
    RemoveDevice,
    RenameDevice,
)
from edgefleet.protocol.rollout import Command, RolloutSpec, Status, Verb, WaveSpec
from edgefleet.protocol.serving_health import ServingHealth
from edgefleet.rollout.evidence.ledger import DeviceStanding
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
from support.raw_device import facts
from support.tiny_releases import tiny_release

Story = Callable[[Hub, list[InsideDevice]], Awaitable[None]]


def inside(tmp_path: Path, story: Story) -> None:
    async def main() -> None:
        async with hub_inside(tmp_path / "data", ManualClock()) as hub:
            await story(hub, await enrol_inside(hub, 5, site="lyon"))

    asyncio.run(main())


def names(hub: Hub, **only: object) -> list[str]:
    chosen = DeviceFilter(**only)  # type: ignore[arg-type] # the fields of a filter
    page = hub.devices(None, 100, chosen)
    assert page.count == len(page.devices)
    return [view.name for view in page.devices]


async def planned(hub: Hub, folder: Path, release: str) -> str:
    await publish_inside(hub, PublisherKey.generate(), tiny_release(folder, release))
    spec = RolloutSpec(model="digits", release=release, waves=(WaveSpec(percent=100),))
    return (await hub.plan(spec, OPERATOR_TOKEN)).id


def test_a_page_follows_the_one_before_though_its_last_device_was_changed(tmp_path: Path) -> None:
    async def story(hub: Hub, _devices: list[InsideDevice]) -> None:
        first = hub.devices(None, 2)
        assert ([view.name for view in first.devices], first.count) == (["d000", "d001"], 5)
        commands, row = hub.device_commands, hub.row("d001")
        await commands.rename(row, RenameDevice(name="another"), OPERATOR_TOKEN)
        second = hub.devices(first.next, 2)
        assert [view.name for view in second.devices] == ["d002", "d003"]
        await commands.remove(hub.row("d003"), RemoveDevice(), OPERATOR_TOKEN)
        last = hub.devices(second.next, 2)
        assert ([view.name for view in last.devices], last.next, last.count) == (["d004"], None, 4)

    inside(tmp_path, story)


def test_devices_are_selected_by_their_part_in_a_rollout(tmp_path: Path) -> None:
    async def story(hub: Hub, devices: list[InsideDevice]) -> None:
        rollout = await planned(hub, tmp_path / "releases", "2")
        await hub.command(rollout, Verb.START, Command(), OPERATOR_TOKEN)
        for number, device in enumerate(devices[:3]):
            said = outcome(f"s{number}", OutcomeKind.TRIAL_STARTED, rollout)
            await report(hub, device, device.said(said))
        for device, kind in (
            (devices[0], OutcomeKind.TRIAL_FAILED),
            (devices[1], OutcomeKind.CONFIRMED),
        ):
            await report(hub, device, device.said(outcome("e", kind, rollout)))
        assert names(hub, rollout=rollout) == ["d000", "d001", "d002"]
        for standing, found in (("failed", "d000"), ("healthy", "d001"), ("trial", "d002")):
            assert names(hub, rollout=rollout, standing=standing) == [found]
        assert names(hub, rollout=rollout, standing="deferred") == []
        for only in ({"standing": "failed"}, {"rollout": rollout, "standing": "none"}):
            with pytest.raises(OperatorError) as caught:
                names(hub, **only)
            assert caught.value.code == "bad_request"

    inside(tmp_path, story)


def test_devices_are_selected_by_facts_and_health(tmp_path: Path) -> None:
    async def story(hub: Hub, devices: list[InsideDevice]) -> None:
        newer = replace(facts("coral_tpu"), agent_version="9.9", runtimes=("litert",))
        await report(hub, devices[3], replace(devices[3].said(), facts=newer))
        rest = ["d000", "d001", "d002", "d004"]
        assert names(hub, profile="coral_tpu") == ["d003"]
        assert names(hub, profile="generic_x86") == rest
        assert names(hub, runtime="litert") == ["d003"]
        assert names(hub, agent="9.9") == ["d003"]
        assert names(hub, agent=facts().agent_version) == rest
        assert names(hub, agent="8") == []
        down, again = ServingHealth(down_s=9.0, down=("digits",)), ServingHealth()
        await report(hub, devices[0], replace(devices[0].said(), serving=down))
        await report(hub, devices[1], replace(devices[1].said(), serving=again))
        assert names(hub, states=("serving_down",)) == ["d000"]
        assert names(hub, states=("serving_unstable",)) == ["d001"]
        assert names(hub, states=("serving_down",), profile="coral_tpu") == []

    inside(tmp_path, story)


def test_rollouts_come_in_pages_newest_first(tmp_path: Path) -> None:
    async def main() -> None:
        clock = ManualClock()
        async with hub_inside(tmp_path / "data", clock) as hub:
            await enrol_inside(hub, 1)
            made = []
            for release in ("1", "2", "3"):
                clock.time += 1
                made.append(await planned(hub, tmp_path / release, release))
                await hub.command(made[-1], Verb.HALT, Command(), OPERATOR_TOKEN)
            first = hub.rollouts(limit=2)
            assert [view.id for view in first.rollouts] == [made[2], made[1]]
            clock.time += 1
            newer = await planned(hub, tmp_path / "4", "4")  # between two pages
            second = hub.rollouts(after=first.next, limit=2)
            assert ([view.id for view in second.rollouts], second.next) == ([made[0]], None)
            planned_ones = hub.rollouts(status=Status.PLANNED).rollouts
            assert [view.id for view in planned_ones] == [newer]

    asyncio.run(main())


def test_the_standings_of_the_interface_are_those_of_the_engine() -> None:
    assert tuple(one.name.lower() for one in DeviceStanding if one) == STANDINGS


@pytest.mark.parametrize(
    "text",
    ["", "x", "d000", "é", "////", cursor("rollouts", 1), cursor("devices", -1), "ZGV2aWNlczox=",
     cursor("devices", 10**12), cursor("devices", ""), cursor("devices", "\u0661"), "A" * 9_999],
)  # fmt: skip
def test_a_text_that_is_not_a_cursor_of_the_list_is_refused(text: str) -> None:
    with pytest.raises(OperatorError) as caught:
        read_number(text, "devices")
    assert (caught.value.code, caught.value.field) == ("cursor_invalid", "after")
    assert read_number(cursor("devices", 7), "devices") == 7


def test_versions_above_the_limit_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgefleet.hub.agent_versions.AGENT_VERSIONS", 2)
    versions = AgentVersions()
    for row, version in enumerate(["1", "2", "3", "1"]):
        versions.set(row, version)
    found = {version: versions.rows_with(version).tolist() for version in ("1", "2", "3")}
    assert found == {"1": [True, False, False, True], "2": [False, True, False, False],
                     "3": [False] * 4}  # fmt: skip
