"""The hub's state of devices is bounded, and reaches the disk."""

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from edgefleet.base.errors import DeviceError, OperatorError
from edgefleet.hub import checkin_handler as device_plane_module
from edgefleet.hub import devices as devices_module
from edgefleet.hub import label_owners as label_owners_module
from edgefleet.hub import shared_facts as shared_facts_module
from edgefleet.hub.agent_versions import AgentVersions
from edgefleet.hub.hub import Hub
from edgefleet.hub.limits import NEW_KINDS_PER_DEVICE_DAY
from edgefleet.hub.store import writer as writer_module
from edgefleet.protocol.device import EnrolRequest, Facts, Phase
from edgefleet.protocol.device_commands import RemoveDevice
from edgefleet.protocol.operator import ClaimRequest
from edgefleet.protocol.version import PROTOCOL
from edgefleet.protocol.wire import Problem, decode
from edgefleet.security.principals import OPERATOR_TOKEN
from support.hub_inside import InsideDevice, ManualClock, check_in, enrol_inside, hub_inside, report
from support.raw_device import facts


def inside(tmp_path: Path, body: Callable[[Hub, list[InsideDevice]], Any]) -> None:
    async def main() -> None:
        async with hub_inside(tmp_path / "data") as hub:
            await body(hub, await enrol_inside(hub, 2))

    asyncio.run(main())


def test_a_device_whose_facts_change_without_end_is_told_to_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_plane_module, "OUTCOMES_PER_DEVICE_HOUR", 2)

    async def run(hub: Hub, devices: list[InsideDevice]) -> None:
        mad = devices[0]
        for memory_mib in (1, 2):
            said = replace(facts(), memory_mib=memory_mib)
            await report(hub, mad, replace(mad.said(), facts=said))
        once_more = replace(mad.said(), facts=facts())
        reply = await check_in(hub, mad, once_more)
        assert (reply.status, decode(reply.body, Problem).code) == (503, "overloaded")

    inside(tmp_path, run)


def test_one_device_uses_up_no_table_of_the_fleet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Profiles, shared facts and label sets: a device has one place in each."""
    monkeypatch.setattr(devices_module, "PROFILES", 4)
    monkeypatch.setattr(label_owners_module, "LABEL_SETS", 4)

    async def run(hub: Hub, devices: list[InsideDevice]) -> None:
        mad, calm = devices
        for number in range(8):
            said = replace(facts(), profile=f"p{number}", labels=(("serial", str(number)),))
            await report(hub, mad, replace(mad.said(), facts=said))
        assert hub.device(mad.name).profile == "p7"
        assert hub.device(mad.name).labels == {"serial": "7"}
        said = replace(facts(), profile="jetson", labels=(("site", "lyon"),))
        await report(hub, calm, replace(calm.said(), facts=said))
        assert (hub.device(calm.name).profile, hub.device(calm.name).labels) == (
            "jetson", {"site": "lyon"}
        )  # fmt: skip

    inside(tmp_path, run)


def test_facts_that_no_device_has_make_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_facts_module, "SHARED_FACTS", 2)
    kept = shared_facts_module.SharedFacts()

    def made(memory_mib: int) -> Facts:
        return replace(facts(), memory_mib=memory_mib)

    for row in range(3):
        kept.add(made(row))
    assert kept[2] is not kept[0]
    for number in range(3, 20):
        kept.set(0, made(number))
    kept.set(2, made(19))
    assert kept[2] is kept[0]  # kept once
    kept.set(1, made(50))
    kept.forget(0)
    kept.forget(2)
    kept.add(made(60))
    kept.add(made(60))
    assert kept[3] is kept[4]
    assert sum(kept.profiles.values()) == 3


def test_an_agent_version_that_no_device_has_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgefleet.hub.agent_versions.AGENT_VERSIONS", 2)
    versions = AgentVersions()
    for row, version in enumerate(("1", "1", "2", "3")):  # there is no room for the third
        versions.set(row, version)
    assert versions.rows_with("1").tolist() == [True, True, False, False]
    assert not versions.rows_with("3").any()
    for number in range(10, 90):
        versions.set(2, str(number))  # one place, however often it changes
    versions.set(2, "3")
    versions.set(3, "3")
    assert versions.rows_with("3").tolist() == [False, False, True, True]
    assert versions.rows_with("1").tolist() == [True, True, False, False]
    assert not versions.rows_with("89").any()
    versions.forget(2)  # the device was removed
    versions.forget(3)
    assert not versions.rows_with("3").any()
    versions.set(3, "4")
    assert versions.rows_with("4").tolist() == [False, False, False, True]


def test_a_device_brings_few_new_kinds_of_facts_in_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run(hub: Hub, devices: list[InsideDevice]) -> None:
        mad, calm = devices
        for number in range(NEW_KINDS_PER_DEVICE_DAY):
            said = replace(facts(), memory_mib=1 + number)
            await report(hub, mad, replace(mad.said(), facts=said))
        more = replace(facts(), memory_mib=99_999)
        reply = await check_in(hub, mad, replace(mad.said(), facts=more))
        assert (reply.status, decode(reply.body, Problem).code) == (503, "overloaded")
        await report(hub, mad, mad.said())  # heartbeats go on
        await report(hub, calm, replace(calm.said(), facts=more))
        assert isinstance(hub.clock, ManualClock)
        hub.clock.time += 86_400
        await report(hub, mad, replace(mad.said(), facts=more))

    inside(tmp_path, run)


def test_a_removed_device_gives_its_places_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices_module, "PROFILES", 2)
    said = replace(facts(), profile="jetson")

    async def run(hub: Hub, devices: list[InsideDevice]) -> None:
        await report(hub, devices[0], replace(devices[0].said(), facts=said))
        other = replace(devices[1].said(), facts=replace(facts(), profile="pi"))
        claims = await hub.claims(ClaimRequest(count=1), OPERATOR_TOKEN)
        request = EnrolRequest(
            protocol=PROTOCOL, claim=claims.claims[0], name="new", facts=other.facts or facts()
        )
        with pytest.raises(OperatorError, match="above the limit of 2 profiles"):
            await hub.enrol(request, None)
        await hub.device_commands.remove(0, RemoveDevice(), OPERATOR_TOKEN)
        await hub.enrol(request, None)

    inside(tmp_path, run)

    async def again() -> None:
        async with hub_inside(tmp_path / "data") as hub:
            monkeypatch.setattr(devices_module, "PROFILES", 3)  # those of the other two, and one
            claims = await hub.claims(ClaimRequest(count=1), OPERATOR_TOKEN)
            third = replace(facts(), profile="third")
            request = EnrolRequest(
                protocol=PROTOCOL, claim=claims.claims[0], name="newer", facts=third
            )
            await hub.enrol(request, None)

    asyncio.run(again())


def test_what_could_not_be_written_of_a_device_is_written_by_the_next_flush(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run(hub: Hub, devices: list[InsideDevice]) -> None:
        await report(hub, devices[1], devices[1].said(phase=Phase.FETCHING))
        with monkeypatch.context() as full:
            full.setattr(writer_module, "WRITES_WAITING", 0)
            with pytest.raises(DeviceError, match="overloaded"):
                await hub.flush()
        await hub.flush()
        with sqlite3.connect(tmp_path / "data" / "hub.sqlite") as found:
            stored = found.execute(
                "SELECT row, model_list.models FROM device_standing"
                " JOIN model_list ON number = device_standing.models"
            ).fetchall()
            assert stored == [(1, '[["",null,"fetching"]]')]

    inside(tmp_path, run)


def test_a_page_that_holds_the_last_device_says_that_there_is_no_other(tmp_path: Path) -> None:
    async def run(hub: Hub, _devices: list[InsideDevice]) -> None:
        first = hub.devices(None, 1)
        assert ([view.name for view in first.devices], first.count) == (["d000"], 2)
        last = hub.devices(first.next, 1)
        assert ([view.name for view in last.devices], last.next) == (["d001"], None)

    inside(tmp_path, run)


def test_two_requests_of_one_device_at_once_enrol_it_once(tmp_path: Path) -> None:
    async def run(hub: Hub, devices: list[InsideDevice]) -> None:
        claim = (await hub.claims(ClaimRequest(), OPERATOR_TOKEN)).claims[0]
        asked = EnrolRequest(
            protocol=PROTOCOL, claim=claim, name="new", facts=facts(), key="secret"
        )
        answers = await asyncio.gather(*(hub.enrol(asked, None) for _ in range(3)))
        assert len({answer.token for answer in answers}) == 1
        assert hub.fleet().total == len(devices) + 1
        with pytest.raises(DeviceError, match="claim_used"):
            await hub.enrol(replace(asked, key="another"), None)

    inside(tmp_path, run)
