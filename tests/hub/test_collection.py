"""Garbage collection of artifacts: what a release needs is never removed, and the rest is."""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest

from edgefleet.base.ids import sha256_hex
from edgefleet.hub import unneeded
from edgefleet.hub.backup.record import artifacts_of
from edgefleet.hub.hub import Hub
from edgefleet.hub.limits import COLLECT_EVERY_S
from edgefleet.hub.unneeded import StoredFile
from edgefleet.protocol.collection import Collect
from edgefleet.protocol.release import Artifact, ReleaseManifest
from edgefleet.security.principals import OPERATOR_TOKEN
from edgefleet.security.signing import PublisherKey
from support.hub_inside import START, ManualClock, hub_inside, publish_inside
from support.tiny_releases import tiny_release

KEPT_S = 100.0


def artifact(rng: random.Random) -> Artifact:
    """One of a few files: releases share some."""
    return Artifact(sha256=sha256_hex(bytes([rng.randrange(40)])), size_bytes=1)


class World:
    """A hub's uploads and releases over time, and what must still be there."""

    def __init__(self, rng: random.Random, template: ReleaseManifest) -> None:
        self.rng = rng
        self.template = template
        self.now = 1000.0
        self.files: dict[str, float] = {}
        self.published: list[ReleaseManifest] = []
        self.publishing: list[ReleaseManifest] = []

    def upload_release(self) -> None:
        variants = tuple(
            msgspec.structs.replace(self.template.variants[0], artifact=artifact(self.rng))
            for _ in range(self.rng.randrange(1, 3))
        )
        golden = msgspec.structs.replace(self.template.golden, artifact=artifact(self.rng))
        lineage = artifact(self.rng) if self.rng.random() < 0.5 else None
        manifest = msgspec.structs.replace(
            self.template, variants=variants, golden=golden, lineage=lineage
        )
        for one in artifacts_of(manifest):
            self.files[one.sha256] = self.now
        if self.rng.random() < 0.5:  # else the publisher gives up
            self.publishing.append(manifest)

    def publish(self) -> None:
        """The check takes time: the release of the first upload is stored now."""
        if self.publishing:
            self.published.append(self.publishing.pop(0))

    def collect(self) -> None:
        in_use = {one.sha256 for manifest in self.publishing for one in artifacts_of(manifest)}
        stored = [StoredFile(digest, 1, at) for digest, at in self.files.items()]
        for file in unneeded.unneeded(stored, self.published, in_use, now=self.now, kept_s=KEPT_S):
            del self.files[file.digest]
        must = {one.sha256 for manifest in self.published for one in artifacts_of(manifest)}
        assert must | in_use <= self.files.keys()
        old = {digest for digest, at in self.files.items() if at < self.now - KEPT_S}
        assert old <= must | in_use  # and nothing else is kept for ever


def histories(count: int, tmp_path: Path) -> None:
    template = tiny_release(tmp_path).manifest
    for seed in range(count):
        rng = random.Random(seed)
        world = World(rng, template)
        for _ in range(40):
            rng.choice((world.upload_release, world.publish, world.collect))()
            world.now += rng.choice((1.0, 60.0))
        world.collect()


def test_no_history_loses_what_a_release_needs(tmp_path: Path) -> None:
    histories(60, tmp_path)


def _without(part: str) -> Callable[[ReleaseManifest], tuple[Artifact, ...]]:
    def some(manifest: ReleaseManifest) -> tuple[Artifact, ...]:
        match part:
            case "golden":
                return tuple(
                    one for one in artifacts_of(manifest) if one != manifest.golden.artifact
                )
            case "lineage":
                return tuple(one for one in artifacts_of(manifest) if one != manifest.lineage)
            case _:
                return artifacts_of(manifest)[1:]

    return some


@pytest.mark.parametrize("part", ["golden", "lineage", "first variant"])
def test_the_histories_find_a_forgotten_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    monkeypatch.setattr(unneeded, "artifacts_of", _without(part))
    with pytest.raises(AssertionError):
        histories(60, tmp_path)


async def _whole(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def old_upload(hub: Hub, data: bytes, age_s: float) -> Path:
    digest = sha256_hex(data)
    await hub.blobs.put(digest, _whole(data))
    path = hub.blobs.path(digest)
    os.utime(path, (START - age_s, START - age_s))
    return path


def test_the_hub_removes_one_file_a_tick_and_never_one_of_a_release(tmp_path: Path) -> None:
    async def main() -> None:
        clock = ManualClock()
        async with hub_inside(tmp_path / "data", clock) as hub:
            release = tiny_release(tmp_path)
            await publish_inside(hub, PublisherKey.generate(), release)
            needed = [hub.blobs.path(digest) for digest in release.files]
            for path in needed:
                os.utime(path, (1.0, 1.0))
            old = [await old_upload(hub, bytes([number]), 2 * 86_400) for number in range(2)]
            new = await old_upload(hub, b"new", 60)
            dry = await hub.collector.collect(Collect(dry_run=True), OPERATOR_TOKEN)
            assert (dry.removed, dry.removed_bytes, dry.kept) == (2, 2, 3)
            counts = []
            clock.time += COLLECT_EVERY_S
            for _ in range(4):
                await hub.collector.step()
                counts.append(sum(path.exists() for path in old))
            assert counts == [2, 1, 0, 0]
            assert all(path.exists() for path in (*needed, new))

    asyncio.run(main())


def test_a_file_that_a_publisher_asks_for_meanwhile_is_kept(tmp_path: Path) -> None:
    async def main() -> None:
        clock = ManualClock()
        async with hub_inside(tmp_path / "data", clock) as hub:
            first = await old_upload(hub, b"1", 2 * 86_400)
            second = await old_upload(hub, b"2", 2 * 86_400)
            third = await old_upload(hub, b"3", 2 * 86_400)
            clock.time += COLLECT_EVERY_S
            await hub.collector.step()  # all three wait to be removed
            hub.blobs.touch(first.name)
            with hub.blobs.used([second.name]):
                for _ in range(3):
                    await hub.collector.step()
            assert [path.exists() for path in (first, second, third)] == [True, True, False]
            removed = await hub.collector.collect(Collect(), OPERATOR_TOKEN)
            assert removed.artifacts == (second.name,)
            assert hub.audit(None, 1).entries[0].action == "collect"
            assert list((hub.folder.blobs / "incoming").iterdir()) == []

    asyncio.run(main())
