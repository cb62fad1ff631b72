"""The hub's state of devices is bounded, and reaches the disk."""

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from edgefleet.base.errors import DeviceError
from edgefleet.hub import checkin_handler as device_plane_module
from edgefleet.hub.hub import Hub
from edgefleet.hub.store import writer as writer_module
from edgefleet.protocol.device import EnrolRequest, Phase
from edgefleet.protocol.operator import ClaimRequest
from edgefleet.protocol.version import PROTOCOL
from edgefleet.protocol.wire import Problem, decode
from edgefleet.security.principals import OPERATOR_TOKEN
from support.hub_inside import InsideDevice, check_in, enrol_inside, hub_inside, report
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
