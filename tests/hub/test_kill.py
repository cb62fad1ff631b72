"""kill -9 at any moment: the rollout ends the same way, and each outcome is counted once.

Scripted devices send check-ins to a hub process that is killed repeatedly while its 10 % wave is
open: between check-ins, and at random moments while a report is in transit.
"""

import asyncio
import random
import socket
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from edgefleet.client.hub import HubClient
from edgefleet.hub.hub import Hub
from edgefleet.protocol.device import OutcomeKind, Phase
from edgefleet.protocol.rollout import (
    Command,
    GateSpec,
    RolloutSpec,
    RolloutView,
    Status,
    Verb,
    WaveSpec,
)
from edgefleet.protocol.wire import encode
from edgefleet.security.principals import OPERATOR_TOKEN
from edgefleet.security.signing import PublisherKey
from support.hub_inside import (
    ManualClock,
    enrol_inside,
    hub_inside,
    outcome,
    publish_inside,
    report,
)
from support.hub_process import HubProcess, running_hub
from support.raw_device import CHECKIN, RawDevice, enrolled
from support.tiny_releases import publish, tiny_release

DEVICES = 100
HELD_BACK = 3  # until the bake ends
CUTS = (1, 10, 100 - HELD_BACK)
GATE = GateSpec(soak_s=0.05, confirm_after_s=0.1, min_sample=5, patience_s=3600, silence_s=3600)
ENDED = {Status.COMPLETED, Status.REVERTED, Status.REFUSED}
DEADLINE_S = 150.0


@dataclass
class World:
    """A hub process and its scripted devices. Release 3 may be bad in the 10 % wave."""

    hub: HubProcess
    devices: list[RawDevice]
    client: HubClient
    kills: int = 0
    rollouts: list[str] = field(default_factory=list)

    def restart(self) -> None:
        self.hub.kill()
        self.kills += 1
        self.hub.start()

    def roll_out(self, release: str, waves: tuple[float, ...] = (1, 10, 100)) -> str:
        spec = RolloutSpec(
            model="digits",
            release=release,
            waves=tuple(WaveSpec(percent=percent) for percent in waves),
            gate=GATE,
        )
        planned = self.client.plan(spec)
        self.client.command(planned.id, Verb.START)
        self.rollouts.append(planned.id)
        return planned.id

    def live(
        self,
        rollout: str,
        *,
        good: Callable[[int], bool] = lambda _wave: True,
        disturb: Callable[[RolloutView, RawDevice], None] = lambda _view, _device: None,
    ) -> RolloutView:
        """Check in the devices, one after another, until the rollout has ended."""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            view = self.client.rollout(rollout)
            for device in self.devices:
                disturb(view, device)
                device.check_in()
                device.live(healthy=good(view.wave or 0))
            if view.status in ENDED and not any(device.spool for device in self.devices):
                return view
        raise AssertionError(f"the rollout did not end: {view.status} {view.why.line}")

    def steps(self, rollout: str) -> list[tuple[str, str]]:
        """(actor, action) of each audit entry of a rollout, oldest first."""
        entries = self.client.audit(limit=1000).entries
        return [
            (entry.actor, entry.action)
            for entry in reversed(entries)
            if entry.about == f"rollout/{rollout}"
        ]

    def reported(self) -> Counter[tuple[str, str, str]]:
        """The reports in the devices' own logs, each counted once."""
        return Counter(
            (device.name, outcome.id, outcome.kind.value)
            for device in self.devices
            for outcome in device.reported
        )

    def counted(self) -> Counter[tuple[str, str, str]]:
        """The outcomes in the hub's store."""
        database = self.hub.data_dir / "hub.sqlite"
        connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
        try:
            rows = connection.execute(
                "SELECT device.name, outcome.id, outcome.kind FROM outcome"
                " JOIN device ON device.row = outcome.device"
            ).fetchall()
        finally:
            connection.close()
        return Counter(rows)


@contextmanager
def world_of(tmp_path: Path, fault: str = "") -> Iterator[World]:
    """A hub with three releases, the first of which runs on every device."""
    with running_hub(tmp_path / "data", interval_s=5, tick_s=0.02, fault=fault) as hub:
        client = hub.client()
        key = PublisherKey.generate()
        for release in ("1", "2", "3"):
            publish(client, key, tiny_release(tmp_path, release))
        world = World(hub, enrolled(client, hub.url, DEVICES), client)
        world.live(world.roll_out("1", (100,)))
        yield world
        for device in world.devices:
            device.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with world_of(tmp_path) as world:
        yield world


def in_ten_percent(view: RolloutView) -> bool:
    return view.status is Status.RUNNING and view.wave == 1


class Assassin:
    """Kills the hub at moments drawn from a fixed seed, while the 10 % wave is open."""

    def __init__(self, world: World, seed: int, kills: int) -> None:
        self._world = world
        self._random = random.Random(seed)
        self._left = kills

    def __call__(self, view: RolloutView, device: RawDevice) -> None:
        if not self._left or not in_ten_percent(view):
            return
        if not device.spool and self._random.random() > 0.02:
            return
        self._left -= 1
        if self._left % 2:  # right after the answer: the device has dropped its report
            device.check_in()
            self._world.restart()
        else:  # while the hub handles it: the answer is lost
            with send_only(device):
                time.sleep(self._random.uniform(0, 0.006))  # the moment of the kill is under test
                self._world.restart()


class send_only:  # noqa: N801 - reads as a verb
    """Sends a report on its own connection, and never reads the answer."""

    def __init__(self, device: RawDevice) -> None:
        where = urlsplit(device.checkin_url)
        body = encode(device.said())
        head = (
            f"POST {CHECKIN} HTTP/1.1\r\nhost: hub\r\n"
            f"authorization: Bearer {device.token}\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self._link = socket.create_connection((where.hostname or "", where.port or 0))
        self._link.sendall(head.encode() + body)

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_error: object) -> None:
        self._link.close()


@pytest.mark.slow
def test_a_hub_killed_in_the_ten_percent_wave_completes_as_if_nothing_had_been(
    world: World,
) -> None:
    calm = world.live(world.roll_out("2"))
    stormy = world.live(world.roll_out("3"), disturb=Assassin(world, seed=1, kills=15))
    assert world.kills == 15
    for view in (calm, stormy):
        assert view.status is Status.COMPLETED
        assert tuple(wave.cut for wave in view.waves) == CUTS
        everyone = DEVICES - HELD_BACK
        counted = view.exposed, view.evidence.healthy, view.evidence.failed
        assert counted == (everyone, everyone, 0)
    assert [wave.exposed for wave in stormy.waves] == [wave.exposed for wave in calm.waves]
    assert world.steps(stormy.id) == world.steps(calm.id)
    assert sum(device.release == "3" for device in world.devices) == DEVICES - HELD_BACK
    assert world.counted() == world.reported()
    assert max(world.counted().values()) == 1


@pytest.mark.slow
def test_a_hub_killed_while_a_bad_release_fails_still_takes_it_back(world: World) -> None:
    def only_the_first_wave_is_good(wave: int) -> bool:
        return wave == 0

    view = world.live(
        world.roll_out("2"),
        good=only_the_first_wave_is_good,
        disturb=Assassin(world, seed=2, kills=8),
    )
    assert world.kills == 8
    assert (view.status, view.reason) == (Status.REVERTED, "error_rate")
    assert 0 < view.exposed <= CUTS[1]
    assert {device.release for device in world.devices} == {"1"}
    assert world.counted() == world.reported()
    assert max(world.counted().values()) == 1


HASTY = """
import asyncio
from edgefleet.hub.store.sqlite import SqliteStore
honest = SqliteStore.save_outcomes

async def hasty(store, row, outcomes, now, committed):
    committed(tuple(outcomes))
    later = (store, row, outcomes, now, lambda _fresh: None)
    asyncio.get_running_loop().call_later(60, honest, *later)

SqliteStore.save_outcomes = hasty
"""


def test_the_sweep_catches_a_hub_that_acknowledges_before_the_commit(tmp_path: Path) -> None:
    with world_of(tmp_path, fault=HASTY) as world:
        rollout = world.roll_out("2", (100,))
        device = next(one for one in world.devices if one.check_in().offer is not None)
        device.report(OutcomeKind.DEFERRED, "2", rollout)
        device.check_in()
        world.restart()
        lost = world.reported() - world.counted()
        assert lost[device.name, device.reported[-1].id, "deferred"] == 1


def test_a_killed_hub_counts_in_its_metrics_what_it_counted_before(world: World) -> None:
    def outcomes() -> list[str]:
        lines = world.client.metrics().splitlines()
        return sorted(line for line in lines if line.startswith("edgefleet_outcomes_total"))

    before = outcomes()
    assert f'edgefleet_outcomes_total{{kind="confirmed"}} {DEVICES}' in before
    world.restart()
    assert outcomes() == before


def test_a_killed_hub_comes_back_where_devices_look_for_it(world: World) -> None:
    before = (world.hub.url, world.hub.checkin_url, world.hub.token)
    world.restart()
    assert (world.hub.url, world.hub.checkin_url, world.hub.token) == before
    world.devices[0].check_in()


def test_what_a_claim_enrolled_is_enrolled_after_a_kill(world: World) -> None:
    devices = world.client.devices(limit=1000).devices
    world.restart()
    again = world.client.devices(limit=1000).devices
    assert [(view.name, view.enrolled_at) for view in again] == [
        (view.name, view.enrolled_at) for view in devices
    ]


def test_a_restarted_hub_shows_what_it_showed_before(tmp_path: Path) -> None:
    clock = ManualClock()

    async def first() -> tuple[object, ...]:
        async with hub_inside(tmp_path / "data", clock) as hub:
            devices = await enrol_inside(hub, 20, site="lyon")
            key = PublisherKey.generate()
            for release in ("1", "2"):
                await publish_inside(hub, key, tiny_release(tmp_path, release))
            for device in devices:
                await report(hub, device, device.said(running="1"))
            gate = GateSpec(soak_s=1000, min_sample=1)
            waves = (WaveSpec(percent=50), WaveSpec(percent=100))
            spec = RolloutSpec(model="digits", release="2", waves=waves, gate=gate)
            rollout = (await hub.plan(spec, OPERATOR_TOKEN)).id
            await hub.command(rollout, Verb.START, Command(note="go"), OPERATOR_TOKEN)
            kinds = (OutcomeKind.TRIAL_STARTED, OutcomeKind.CONFIRMED, OutcomeKind.DEFERRED)
            for device in devices:
                offer = (await report(hub, device, device.said(running="1"))).offer
                if offer is None:
                    continue
                outcomes = [
                    outcome(f"o{kind}", kind, rollout) for kind in kinds[: 1 + device.seq % 3]
                ]
                await report(hub, device, device.said(*outcomes, running="2", phase=Phase.TRIAL))
                await report(hub, device, device.said(running="2"))
            await hub.loop.tick()
            return shown(hub, rollout)

    async def second(rollout: str) -> tuple[object, ...]:
        async with hub_inside(tmp_path / "data", clock) as hub:
            return shown(hub, rollout)

    before = asyncio.run(first())
    rollout = before[0]
    assert isinstance(rollout, str)
    after = asyncio.run(second(rollout))
    assert after == before


def shown(hub: Hub, rollout: str) -> tuple[object, ...]:
    """All operator views, except the history of the last hour."""
    names = [device.name for device in hub.devices(None, 1000).devices]
    return (
        rollout,
        hub.fleet(),
        hub.models(),
        hub.release("digits", "2"),
        hub.rollouts(),
        hub.devices(None, 1000),
        [hub.why_device(name) for name in names],
        hub.why_rollout(rollout),
        hub.why_release("digits", "2"),
        hub.audit(None, 1000),
        hub.registry.keys(),
    )
