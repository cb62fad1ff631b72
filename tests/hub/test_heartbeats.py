"""Heartbeats are answered from their bytes, as the check-in handler would answer them."""

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace

from edgefleet.http1.known_heads import Head
from edgefleet.hub.hub import Hub
from edgefleet.protocol.device import CheckIn, CheckInAnswer, ModelReport, digest
from edgefleet.protocol.device_commands import RemoveDevice
from edgefleet.protocol.labels import Label
from edgefleet.protocol.operator import TruthRequest
from edgefleet.protocol.version import PROTOCOL
from edgefleet.protocol.wire import decode, encode
from edgefleet.security.principals import OPERATOR_TOKEN
from edgefleet.security.signing import PublisherKey
from support.hub_inside import (
    InsideDevice,
    ManualClock,
    check_in,
    enrol_inside,
    hub_inside,
    publish_inside,
)
from support.raw_device import facts
from support.tiny_releases import tiny_release

RUNS = (ModelReport(model="digits", release="1"),)
DATE = b"date: Tue, 01 Dec 2026 00:00:00 GMT\r\n"


def bytes_of(device: InsideDevice, body: bytes) -> bytes:
    return (
        b"POST /device/v1/checkin HTTP/1.1\r\nHost: hub\r\nAuthorization: Bearer "
        + device.token.encode()
        + b"\r\nContent-Length: %d\r\n\r\n" % len(body)
        + body
    )


def quick(hub: Hub, device: InsideDevice, said: CheckIn | bytes) -> bytes | None:
    """The quick answer to a check-in whose head is known."""
    data = bytes_of(device, said if isinstance(said, bytes) else encode(said))
    text = data[: data.find(b"\r\n\r\n") + 4]
    headers = {b"authorization": b"Bearer " + device.token.encode()}
    size = len(data) - len(text)
    hub.device_plane.quick.heads.add(text, Head("POST", "/device/v1/checkin", "", headers, size))
    return hub.device_plane.quick.answer(data, DATE)


async def known(hub: Hub, tmp_path: Path) -> tuple[InsideDevice, InsideDevice]:
    """Two devices with one model, whose first check-ins were accepted."""
    await publish_inside(hub, PublisherKey.generate(), tiny_release(tmp_path, "1"))
    first, second = await enrol_inside(hub, 2)
    full = CheckIn(protocol=PROTOCOL, seq=1, digest=digest(RUNS), models=RUNS, full=True)
    for device in (first, second):
        assert quick(hub, device, full) is None
        assert (await check_in(hub, device, full)).status == 200
    return first, second


def beat(seq: int) -> CheckIn:
    return CheckIn(protocol=PROTOCOL, seq=seq, digest=digest(RUNS))


def test_a_heartbeat_is_counted_and_seen(tmp_path: Path) -> None:
    async def main() -> None:
        clock = ManualClock()
        async with hub_inside(tmp_path / "data", clock) as hub:
            first, second = await known(hub, tmp_path)
            clock.time += 30
            await asyncio.sleep(0)  # the next turn of the loop
            answer = quick(hub, first, beat(2))
            assert answer is not None
            head, _, body = answer.partition(b"\r\n\r\n")
            assert decode(body, CheckInAnswer) == CheckInAnswer(interval_s=60)
            assert head == (
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
                + DATE
                + b"content-length: %d" % len(body)
            )
            assert hub.device(first.name).last_seen == clock.time
            assert hub.device(second.name).last_seen == clock.time - 30
            assert 'edgefleet_checkins_total{result="ok"} 3' in hub.metrics()
            assert "edgefleet_checkin_seconds_count 3" in hub.metrics()
            assert quick(hub, first, beat(2)) is None  # its number was used
            assert (await check_in(hub, first, beat(2))).status == 409

    asyncio.run(main())


@pytest.mark.parametrize(
    "body",
    [
        b'{"protocol":1,"seq":5}',
        b'{"protocol":3,"seq":"5"}',
        b'{"protocol":3,"seq":5,"more":1}',
        b'{"protocol":3,"seq":5',
        b'{"protocol":3,"seq":5,"digest":1}\xff',
        b"",
        encode(beat(5)) + b" " * 100,
    ],
)
def test_all_else_is_left_to_the_handler(tmp_path: Path, body: bytes) -> None:
    async def main() -> None:
        async with hub_inside(tmp_path / "data") as hub:
            first, _ = await known(hub, tmp_path)
            assert quick(hub, first, body) is None
            assert quick(hub, first, beat(5)) is not None  # nothing was recorded

    asyncio.run(main())


def test_a_removed_device_gets_no_quick_answer(tmp_path: Path) -> None:
    async def main() -> None:
        async with hub_inside(tmp_path / "data") as hub:
            first, second = await known(hub, tmp_path)
            assert quick(hub, first, beat(2)) is not None
            await hub.device_commands.remove(hub.row(first.name), RemoveDevice(), OPERATOR_TOKEN)
            assert quick(hub, first, beat(3)) is None
            assert (await check_in(hub, first, beat(3))).status == 401
            assert quick(hub, second, beat(3)) is not None

    asyncio.run(main())


def test_labels_that_wait_are_sent(tmp_path: Path) -> None:
    async def main() -> None:
        async with hub_inside(tmp_path / "data") as hub:
            first, second = await known(hub, tmp_path)
            gives = replace(facts(), takes_labels=True)
            await check_in(hub, first, replace(beat(2), facts=gives))
            request = TruthRequest(
                device=first.name, model="digits", labels=(Label(id="a", truth=1),)
            )
            await hub.add_truth(request, OPERATOR_TOKEN)
            assert quick(hub, first, beat(3)) is None
            answer = decode((await check_in(hub, first, beat(3))).body, CheckInAnswer)
            assert [one.label.id for one in answer.truth] == ["a"]
            assert quick(hub, second, beat(2)) is not None

    asyncio.run(main())
