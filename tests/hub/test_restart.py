"""A restart restores the state: random histories of a hub, compared with a hub on a copied folder.

The copy is the folder after a power cut: nothing was closed or flushed before it, except the
standings of devices, which may be lost.
"""

import asyncio
import shutil
from pathlib import Path

import pytest

from edgefleet.base.errors import OperatorError
from edgefleet.rollout.engine import Engine
from edgefleet.security.signing import PublisherKey
from support.hub_inside import ManualClock, enrol_inside, hub_inside, publish_inside, report
from support.hub_life import RELEASES, Life, shown, store_last_contacts
from support.tiny_releases import tiny_release


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
