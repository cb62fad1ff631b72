"""Finished rollouts come back from their pages, as they would from all of their reports.

Random histories of a hub are compared with a hub on a copied folder, while snapshots are stored,
or stopped before they are valid. Planted bugs show that the comparison notices a lost report.
"""

import asyncio
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from edgefleet.base.errors import DeviceError
from edgefleet.hub.hub import Hub
from edgefleet.hub.store.pages import PageWriter
from edgefleet.hub.store.reader import Reader
from edgefleet.security.signing import PublisherKey
from support.hub_inside import ManualClock, enrol_inside, hub_inside, publish_inside, report
from support.hub_life import RELEASES, Life, shown, store_last_contacts
from support.tiny_releases import tiny_release

STEPS = 150
LIFE = 40  # steps of one hub


@contextmanager
def stopped() -> Iterator[None]:
    """Snapshots are stopped before they are valid: their parts are written and left over."""

    def refuse(*_args: object) -> None:
        raise DeviceError("disk_full", "The disk is full.")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PageWriter, "publish", refuse)
        yield


async def save_or_stop(hub: Hub, number: int) -> None:
    """Every second snapshot is stopped before it is valid."""
    if number % 2:
        await hub.snapshots.save()
        return
    with stopped(), suppress(DeviceError):
        await hub.snapshots.save()


class Found:
    """The result of a comparison: the differences, and how many pages it loaded."""

    def __init__(self) -> None:
        self.differences: list[str] = []
        self.loaded = 0
        self.damage: set[str] = set()


async def compare(
    tmp_path: Path,
    seed: int,
    *,
    steps: int = STEPS,
    harm: Callable[[Path], None] = lambda _folder: None,
) -> Found:
    """Compare a hub with one on a copy of its folder, which ``harm`` may change before.

    The hub itself is restarted every ``LIFE`` steps, so snapshots follow on snapshots.
    """
    clock, found, folder = ManualClock(), Found(), tmp_path / "data"
    async with hub_inside(folder, clock) as hub:
        key = PublisherKey.generate()
        for release in RELEASES:
            await publish_inside(hub, key, tiny_release(tmp_path, release))
        devices = await enrol_inside(hub, 12, prefix="l", site="lyon")
        devices += await enrol_inside(hub, 8, prefix="o", site="oslo")
        life = Life(hub, clock, devices, seed, ends=True)
        for device in devices:
            await report(hub, device, device.said())
    for begin in range(0, steps, LIFE):
        async with hub_inside(folder, clock) as hub:
            life.go_on_at(hub)
            for number in range(begin, min(steps, begin + LIFE)):
                await life.step()
                if number % 3 == 0:
                    await save_or_stop(hub, number)
                if number % 10 == 9:
                    await compare_copy(hub, tmp_path / "copy", clock, harm, found)
    return found


async def compare_copy(
    hub: Hub, copy: Path, clock: ManualClock, harm: Callable[[Path], None], found: Found
) -> None:
    """Add the differences of a hub on a copy of the folder."""
    await hub.flush()
    shutil.copytree(hub.folder.root, copy)
    store_last_contacts(copy, hub.devices(None, 1000).devices)
    harm(copy)
    async with hub_inside(copy, clock) as again:
        before, after = shown(hub), shown(again)
        found.loaded += pages(copy)
        found.damage.update(again.snapshots.damage)
    found.differences += [name for name in before if before[name] != after[name]]
    shutil.rmtree(copy)


def pages(folder: Path) -> int:
    """The pages of a folder that are valid by now."""
    with closing(sqlite3.connect(folder / "hub.sqlite")) as database:
        (count,) = database.execute("SELECT count(*) FROM page").fetchone()
    return int(count)


def changed(*statements: str) -> Callable[[Path], None]:
    """A harm: these statements change the database."""

    def harm(folder: Path) -> None:
        with closing(sqlite3.connect(folder / "hub.sqlite")) as database, database:
            for statement in statements:
                database.execute(statement)

    return harm


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in (1, 2, 3, 4, 6, 7, 9, 10))]
)
def test_finished_rollouts_come_back_from_their_pages(tmp_path: Path, seed: int) -> None:
    found = asyncio.run(compare(tmp_path, seed))
    assert found.differences == []
    assert found.damage == set()
    assert found.loaded > 10, "few rollouts of this history finish before a snapshot"


@pytest.mark.long
@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("UPDATE page_part SET body = substr(body, 1, length(body) - 1)", "page of"),
        ("DELETE FROM page_part", "page of"),
        ("UPDATE page SET parts = parts + 1", "page of"),
        ("UPDATE page SET sha256 = 'other'", "page of"),
        ("UPDATE snapshot SET counts = '{}'", "snapshot"),
        ("UPDATE snapshot SET outcome = outcome + 1", "snapshot"),
        ("UPDATE snapshot SET generation = 99", "snapshot"),
    ],
)
def test_a_damaged_snapshot_is_named_and_the_outcomes_are_counted_again(
    tmp_path: Path, statement: str, says: str
) -> None:
    found = asyncio.run(compare(tmp_path, 3, steps=100, harm=changed(statement)))
    assert found.differences == []
    assert found.damage
    assert all(says in text for text in found.damage)


def skip_an_outcome(patch: pytest.MonkeyPatch) -> None:
    honest = Reader.outcomes_after
    patch.setattr(Reader, "outcomes_after", lambda self, number: honest(self, number + 1))


def forget_rollouts_without_pages(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Reader, "outcomes_between", lambda _self, _rollouts, _last: iter(()))


@pytest.mark.long
@pytest.mark.parametrize(
    "plant",
    [
        skip_an_outcome,
        forget_rollouts_without_pages,
    ],
)
def test_a_planted_bug_of_the_snapshot_is_caught(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    plant: Callable[[pytest.MonkeyPatch], None],
) -> None:
    plant(monkeypatch)
    seen: list[str] = []
    for seed in range(4):
        folder = tmp_path / str(seed)
        folder.mkdir()
        seen += asyncio.run(compare(folder, seed)).differences
        if seen:
            break
    assert seen
