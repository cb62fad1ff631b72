"""A hub in the test's process: no sockets, and a clock that the test sets."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from edgefleet.base.entropy import SeededEntropy
from edgefleet.http1.message import Reply, Request
from edgefleet.hub.hub import Hub, OpenStore
from edgefleet.hub.settings import HubSettings
from edgefleet.hub.store.sqlite import SqliteStore
from edgefleet.protocol.device import (
    CheckIn,
    CheckInAnswer,
    EnrolRequest,
    Outcome,
    OutcomeKind,
    Phase,
)
from edgefleet.protocol.operator import ClaimRequest, PublishRequest, TrustKey
from edgefleet.protocol.rollout import Command, RolloutSpec, Verb, WaveSpec
from edgefleet.protocol.version import ONE_MODEL
from edgefleet.protocol.wire import decode, encode
from edgefleet.security.principals import OPERATOR_TOKEN
from edgefleet.security.signing import PublisherKey, sign_manifest
from support.raw_device import CHECKIN, facts
from support.tiny_releases import TinyRelease, tiny_release

START = 1_750_000_000.0


class ManualClock:
    """A clock that only the test advances."""

    def __init__(self, now: float = START) -> None:
        self.time = now

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


@dataclass
class InsideDevice:
    """A device's credential and its last number."""

    name: str
    token: str
    seq: int = 0
    protocol: int = ONE_MODEL

    def said(
        self,
        *outcomes: Outcome,
        running: str | None = None,
        phase: Phase = Phase.IDLE,
    ) -> CheckIn:
        self.seq += 1
        return CheckIn(
            protocol=self.protocol,
            seq=self.seq,
            phase=phase,
            model="digits" if running else None,
            release=running,
            outcomes=outcomes,
        )


class SlowDisk:
    """The disk of one hub: ``open_store`` of ``hub_inside``."""

    def open_store(self, path: Path, /, *, must_exist: bool = False) -> SqliteStore:
        self._store = SqliteStore.open(path, must_exist=must_exist)
        return self._store

    @asynccontextmanager
    async def blocked(self) -> AsyncIterator[None]:
        """Block the writer: nothing is committed until the end of the block."""
        begun, loop, go_on = asyncio.Event(), asyncio.get_running_loop(), threading.Event()

        def wait(_connection: sqlite3.Connection) -> None:
            loop.call_soon_threadsafe(begun.set)
            assert go_on.wait(30)

        job = self._store.writer.submit(wait)
        await begun.wait()
        try:
            yield
        finally:
            go_on.set()
        await job


@asynccontextmanager
async def hub_inside(
    data_dir: Path,
    clock: ManualClock | None = None,
    *,
    open_store: OpenStore = SqliteStore.open,
    **settings: float,
) -> AsyncIterator[Hub]:
    """An open hub whose loop does not run: call ``hub.loop.tick()``."""
    hub = await Hub.open(
        HubSettings(data_dir=data_dir, **settings),  # type: ignore[arg-type] # all are numbers
        clock or ManualClock(),
        SeededEntropy(1),
        open_store=open_store,
    )
    try:
        yield hub
    finally:
        await hub.close()


async def enrol_inside(
    hub: Hub, count: int, *, prefix: str = "d", **labels: str
) -> list[InsideDevice]:
    """New devices ``d000``, ``d001``..."""
    claims = await hub.claims(ClaimRequest(count=count, labels=labels), OPERATOR_TOKEN)
    devices = []
    for number, claim in enumerate(claims.claims):
        request = EnrolRequest(
            protocol=ONE_MODEL, claim=claim, name=f"{prefix}{number:03}", facts=facts()
        )
        answer = await hub.enrol(request, None)
        devices.append(InsideDevice(answer.device, answer.token))
    return devices


async def publish_inside(hub: Hub, key: PublisherKey, release: TinyRelease) -> None:
    """Trust, upload, publish."""

    async def whole(data: bytes) -> AsyncIterator[bytes]:
        yield data

    await hub.registry.trust(TrustKey(name="publisher", public_key=key.public.text), OPERATOR_TOKEN)
    for digest, data in _contents(release):
        await hub.blobs.put(digest, whole(data))
    await hub.publish(PublishRequest(envelope=sign_manifest(release.manifest, key)), OPERATOR_TOKEN)


async def open_rollout(hub: Hub, folder: Path) -> str:
    """The id of a rollout of release 2 whose one wave has every device."""
    release = tiny_release(folder, "2")
    await publish_inside(hub, PublisherKey.generate(), release)
    spec = RolloutSpec(model="digits", release="2", waves=(WaveSpec(percent=100),))
    rollout = (await hub.plan(spec, OPERATOR_TOKEN)).id
    await hub.command(rollout, Verb.START, Command(), OPERATOR_TOKEN)
    return rollout


def _contents(release: TinyRelease) -> list[tuple[str, bytes]]:
    return [(digest, path.read_bytes()) for digest, path in release.files.items()]


def request_of(device: InsideDevice, body: bytes | CheckIn) -> Request:
    headers = {b"authorization": f"Bearer {device.token}".encode()}
    raw = body if isinstance(body, bytes) else encode(body)
    return Request("POST", CHECKIN, "", headers, raw)


async def reply_of(answered: Reply | Awaitable[Reply]) -> Reply:
    return answered if isinstance(answered, Reply) else await answered


async def check_in(hub: Hub, device: InsideDevice, body: bytes | CheckIn) -> Reply:
    """The answer of the check-in listener. Its turn of the loop has ended then."""
    reply = await reply_of(hub.device_plane(request_of(device, body)))
    await asyncio.sleep(0)
    return reply


async def report(hub: Hub, device: InsideDevice, said: CheckIn) -> CheckInAnswer:
    """A check-in that must be accepted."""
    reply = await check_in(hub, device, said)
    assert reply.status == 200, reply.body
    return decode(reply.body, CheckInAnswer)


def stored_outcomes(data_dir: Path) -> list[tuple[int, str]]:
    """The outcomes in the database, as (row of the device, id), in the order of their storage."""
    connection = sqlite3.connect(f"file:{data_dir / 'hub.sqlite'}?mode=ro", uri=True)
    try:
        return connection.execute("SELECT device, id FROM outcome ORDER BY number").fetchall()
    finally:
        connection.close()


def outcome(id_: str, kind: OutcomeKind, rollout: str, release: str = "2") -> Outcome:
    return Outcome(id=id_, rollout=rollout, release=release, kind=kind, at=START)


async def settle() -> None:
    """Run all ready callbacks of the loop."""
    for _ in range(20):
        await asyncio.sleep(0)
