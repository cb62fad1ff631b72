"""Verified credentials: a bounded table, and what is forgotten is verified again."""

import asyncio
from pathlib import Path

import pytest

from edgefleet.hub import known_credentials
from edgefleet.hub.known_credentials import KnownCredentials
from edgefleet.protocol.device_commands import RemoveDevice
from edgefleet.protocol.wire import Problem, decode
from edgefleet.security.principals import OPERATOR_TOKEN
from support.hub_inside import check_in, enrol_inside, hub_inside


def test_the_oldest_credential_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_credentials, "_KNOWN", 2)
    known = KnownCredentials()
    for row in range(3):
        known.add(b"token %d" % row, row)
    assert [known.row(b"token %d" % row) for row in range(3)] == [None, 1, 2]


def test_one_token_is_known_for_each_row() -> None:
    known = KnownCredentials()
    known.add(b"old", 7)
    known.add(b"new", 7)
    assert (known.row(b"old"), known.row(b"new")) == (None, 7)
    known.forget(7)
    known.forget(8)  # never known
    assert known.row(b"new") is None


def test_a_removed_device_is_refused_at_its_next_check_in(tmp_path: Path) -> None:
    async def main() -> None:
        async with hub_inside(tmp_path / "data") as hub:
            device, other = await enrol_inside(hub, 2)
            assert (await check_in(hub, device, device.said())).status == 200
            assert (await check_in(hub, other, other.said())).status == 200
            row = hub.row(device.name)
            await hub.device_commands.remove(row, RemoveDevice(), OPERATOR_TOKEN)
            refused = await check_in(hub, device, device.said())
            assert decode(refused.body, Problem).code == "device_removed"
            assert (await check_in(hub, other, other.said())).status == 200

    asyncio.run(main())
