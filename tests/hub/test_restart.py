"""A restart restores the state: random histories of a hub, compared with a hub on a copied folder.

The copy is the folder after a power cut: nothing was closed or flushed before it, except the
standings of devices, which may be lost.
"""

import asyncio
import random
import shutil
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from edgefleet.base.errors import OperatorError
from edgefleet.hub.hub import Hub
from edgefleet.protocol.device import Outcome, OutcomeKind, Phase
from edgefleet.protocol.operator import DeviceView
from edgefleet.protocol.rollout import Command, GateSpec, RolloutSpec, Status, Verb, WaveSpec
from edgefleet.rollout.engine import Engine
from edgefleet.security.principals import OPERATOR_TOKEN
from edgefleet.security.signing import PublisherKey
from support.hub_inside import (
    InsideDevice,
    ManualClock,
    enrol_inside,
    hub_inside,
    publish_inside,
    report,
)
from support.tiny_releases import tiny_release

RELEASES = ("1", "2", "3")
GATE = GateSpec(soak_s=0, min_sample=1, confirm_after_s=0, max_error_rate=0.3)


def shown(hub: Hub) -> dict[str, object]:
    """All operator views, except the history of the last hour.

    Every last check-in is from before the start of a hub that was just started.
    """
    views = [replace(view, before_start=False) for view in hub.devices(None, 1000).devices]
    rollouts = hub.rollouts().rollouts
    return {
        "fleet": hub.fleet(),
        "models": hub.models(),
        "rollouts": rollouts,
        "devices": views,
        "why devices": [hub.why_device(view.name) for view in views],
        "why rollouts": [hub.why_rollout(view.id) for view in rollouts],
        "why releases": [hub.why_release("digits", release) for release in RELEASES],
        "audit": hub.audit(None, 1000),
        "keys": hub.registry.keys(),
        "outcomes": [line for line in hub.metrics().splitlines() if "outcomes_total{" in line],
    }


@contextmanager
def refused(*codes: str) -> Iterator[None]:
    """Accept an operator error with one of these codes."""
    try:
        yield
    except OperatorError as error:
        if error.code not in codes:
            raise


class Life:
    """Random requests to a hub, drawn from a seed."""

    def __init__(
        self, hub: Hub, clock: ManualClock, devices: list[InsideDevice], seed: int
    ) -> None:
        self._hub = hub
        self._clock = clock
        self._devices = devices
        self._draw = random.Random(seed)
        self._offered: dict[str, list[str]] = {device.name: [] for device in devices}

    async def step(self) -> None:
        """Send one random request."""
        self._clock.time += 0.25
        things = [*[self._report] * 6, self._plan, self._command, self._tick]
        await self._draw.choice(things)()

    async def _report(self) -> None:
        draw = self._draw
        device = draw.choice(self._devices)
        rollouts = [*self._offered[device.name] * 4, "unknown"]  # the fields that a device can know
        outcomes = [
            Outcome(
                id=f"o{draw.randrange(400)}",
                rollout=draw.choice(rollouts),
                release=draw.choice(RELEASES),
                kind=draw.choice(list(OutcomeKind)),
                at=self._clock.time,
                reason=draw.choice(("", "golden_failed", "confidence_drop")),
            )
            for _ in range(draw.randrange(4))
        ]
        phase = draw.choice((Phase.IDLE, Phase.IDLE, Phase.FETCHING, Phase.TRIAL))
        said = device.said(*outcomes, running=draw.choice((None, *RELEASES)), phase=phase)
        offer = (await report(self._hub, device, said)).offer
        if offer is not None and offer.rollout not in self._offered[device.name]:
            self._offered[device.name].append(offer.rollout)

    async def _plan(self) -> None:
        spec = RolloutSpec(
            model="digits",
            release=self._draw.choice(RELEASES),
            selector=self._draw.choice(("", "site=lyon", "site=oslo")),
            waves=(WaveSpec(percent=20), WaveSpec(percent=100)),
            gate=GATE,
        )
        with refused("rollout_overlap", "release_failed_before", "release_current"):
            await self._hub.plan(spec, OPERATOR_TOKEN)

    async def _command(self) -> None:
        rollouts = self._hub.rollouts().rollouts
        verbs = [Verb.START, Verb.START, *Verb]
        if not rollouts:
            return
        view = self._draw.choice(rollouts)
        verb = Verb.START if view.status is Status.PLANNED else self._draw.choice(verbs)
        with refused("verb_not_now", "rollout_overlap"):
            await self._hub.command(view.id, verb, Command(note="drawn"), OPERATOR_TOKEN)

    async def _tick(self) -> None:
        await self._hub.loop.tick()


def store_last_contacts(data_dir: Path, views: Iterable[DeviceView]) -> None:
    """Store the times of the last check-ins, which a hub may forget."""
    with closing(sqlite3.connect(data_dir / "hub.sqlite")) as connection, connection:
        connection.executemany(
            "UPDATE device_standing SET last_seen = ?"
            " WHERE row = (SELECT row FROM device WHERE name = ?)",
            [(view.last_seen, view.name) for view in views],
        )


async def differences(tmp_path: Path, seed: int, steps: int) -> list[str]:
    """Differences of a hub on a copy of the folder, at every sixth step."""
    clock, found = ManualClock(), []
    async with hub_inside(tmp_path / "data", clock) as hub:
        key = PublisherKey.generate()
        for release in RELEASES:
            await publish_inside(hub, key, tiny_release(tmp_path, release))
        devices = await enrol_inside(hub, 12, prefix="l", site="lyon")
        devices += await enrol_inside(hub, 8, prefix="o", site="oslo")
        life = Life(hub, clock, devices, seed)
        for device in devices:
            await report(hub, device, device.said())
        for number in range(steps):
            await life.step()
            if number % 6:
                continue
            await hub.flush()
            copy = tmp_path / f"copy-{number}"
            shutil.copytree(tmp_path / "data", copy)
            store_last_contacts(copy, hub.devices(None, 1000).devices)
            async with hub_inside(copy, clock) as again:
                before, after = shown(hub), shown(again)
            found += [f"{number}: {name}" for name in before if before[name] != after[name]]
            shutil.rmtree(copy)
    return found


@pytest.mark.parametrize("seed", range(6))
def test_a_hub_cut_off_at_any_moment_comes_back_as_it_was(tmp_path: Path, seed: int) -> None:
    assert asyncio.run(differences(tmp_path, seed, steps=120)) == []


def test_a_hub_that_lets_a_change_hold_before_it_is_stored_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Engine.command

    def hasty(self: Engine, *args: object, **more: object) -> object:
        change = honest(self, *args, **more)  # type: ignore[arg-type] # passed on
        self.commit(change)
        raise OperatorError("verb_not_now", "It held, but was not stored.")

    monkeypatch.setattr(Engine, "command", hasty)
    assert asyncio.run(differences(tmp_path, 0, steps=120))
