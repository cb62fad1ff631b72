"""Beside, drain or refuse: the decision before a load, and what the serving process does."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from edgefleet.base.cgroup import MemoryRoom
from edgefleet.base.errors import DeviceError, EdgefleetError
from edgefleet.protocol.serving import Apply, ServedModel
from edgefleet.serving import model_host
from edgefleet.serving.memory_budget import (
    MIB,
    RESERVE_BYTES,
    WORKER_BYTES,
    Need,
    decide,
)
from edgefleet.serving.model_host import ModelHost
from support.tiny_models import TinyModel, classifier, pixels

FILE = 100 * MIB
PEAK = 175 * MIB + WORKER_BYTES


def room(free: int) -> MemoryRoom:
    return MemoryRoom(512 * MIB, 512 * MIB - free - RESERVE_BYTES, "cgroup")


@pytest.mark.parametrize(
    ("free", "drained", "how"),
    [
        (PEAK, 0, "beside"),
        (PEAK, 96 * MIB, "beside"),
        (PEAK - 1, 0, "refuse"),
        (PEAK - 96 * MIB, 96 * MIB, "drain"),
        (PEAK - 96 * MIB - 1, 96 * MIB, "refuse"),
    ],
)
def test_the_least_disturbing_way_that_fits_is_taken(free: int, drained: int, how: str) -> None:
    need = Need(FILE, "onnx", in_worker=True, limit_bytes=512 * MIB, drained_bytes=drained)
    assert decide(need, room(free)).how == how


def test_the_figures_are_in_the_reason() -> None:
    need = Need(FILE, "onnx", in_worker=True, limit_bytes=512 * MIB, drained_bytes=96 * MIB)
    assert decide(need, room(200 * MIB)).text == (
        "The load needs 220 MiB, and 200 MiB of the cgroup's 512 MiB are free. The release before "
        "it is unloaded first, which frees 96 MiB."
    )
    assert decide(need, room(20 * MIB)).text == (
        "The load needs 220 MiB, and 20 MiB of the cgroup's 512 MiB are free, 116 MiB without the "
        "release before it."
    )


def test_a_file_above_the_limit_of_its_variant_is_refused() -> None:
    need = Need(FILE, "onnx", in_worker=False, limit_bytes=FILE)
    assert decide(need, None).how == "beside"
    small = Need(FILE, "onnx", in_worker=False, limit_bytes=99 * MIB)
    assert decide(small, None).text == (
        "The file has 100 MiB, and the memory limit of the variant is 99 MiB."
    )


def test_a_runtime_that_keeps_a_copy_needs_more() -> None:
    need = Need(FILE, "litert", in_worker=True, limit_bytes=FILE)
    assert decide(need, room(PEAK)).how == "refuse"
    assert decide(need, room(PEAK + 25 * MIB)).how == "beside"


def alive(pid: int | None) -> bool:
    return Path(f"/proc/{pid}").exists()


class Scene:
    """A host with a confirmed release 1, and a limit that the test sets."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.one = classifier(folder / "1.onnx")
        self.two = classifier(folder / "2.onnx", hidden=12)
        self.host = ModelHost()
        self.free = 10_000 * MIB
        monkeypatch.setattr(model_host, "memory_room", self.room)
        monkeypatch.setattr(ModelHost, "memory_kib", lambda *_: 90 << 10)

    def room(self) -> MemoryRoom:
        """The release that is drained frees 90 MiB."""
        limit = 20_000 * MIB
        return MemoryRoom(limit, limit - self.free, "cgroup")

    async def apply(self, generation: int, trial: TinyModel | None = None) -> None:
        wanted = ServedModel(
            model="digits",
            confirmed=self.one.served("1"),
            trial=trial.served("2") if trial else None,
            isolation="process",
        )
        await self.host.apply(Apply(generation=generation, models=(wanted,)))

    async def ask(self) -> str:
        """The release that answers."""
        release = self.host.routes["digits"]
        answer = release.infer({"pixels": pixels(1)}, ["probabilities"])
        if not isinstance(answer, tuple):
            await answer
        return release.release


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(tmp_path, monkeypatch)


def test_a_load_without_room_is_refused_and_the_release_serves_on(scene: Scene) -> None:
    async def story() -> None:
        await scene.apply(1)
        before = scene.host.routes["digits"]
        scene.free = -200 * MIB
        with pytest.raises(DeviceError, match=r"memory_short \(digits\).*The load needs"):
            await scene.apply(2, scene.two)
        assert scene.host.routes["digits"] is before
        assert await scene.ask() == "1"
        await scene.host.close()

    asyncio.run(story())


def test_a_drained_swap_leaves_one_release_in_memory_and_comes_back(scene: Scene) -> None:
    async def story() -> None:
        await scene.apply(1)
        first = scene.host.routes["digits"].worker
        scene.free = 40 * MIB
        await scene.apply(2, scene.two)
        assert await scene.ask() == "2"
        assert first is not None
        assert not alive(first)
        status = scene.host.status("").models[0]
        assert status.on_trial
        assert status.load.startswith("drain: The load needs")
        trial = scene.host.routes["digits"].worker
        await scene.apply(3, scene.two)  # the same set: nothing is loaded again
        assert scene.host.routes["digits"].worker == trial
        await scene.apply(4)  # the trial has failed
        assert await scene.ask() == "1"
        assert not alive(trial)
        await scene.host.close()

    asyncio.run(story())


def test_after_a_drain_a_release_that_does_not_load_gives_the_place_back(scene: Scene) -> None:
    async def story() -> None:
        await scene.apply(1)
        scene.free = 40 * MIB
        scene.two.path.write_bytes(b"damaged")
        with pytest.raises(EdgefleetError, match=r"digest_mismatch \(digits\)"):
            await scene.apply(2, scene.two)
        assert await scene.ask() == "1"
        assert scene.host.generation == 1
        await scene.host.close()

    asyncio.run(story())


def test_after_a_drain_a_trial_that_ends_by_itself_gives_the_place_back(scene: Scene) -> None:
    async def story() -> None:
        await scene.apply(1)
        scene.free = 40 * MIB
        await scene.apply(2, scene.two)
        trial = scene.host.routes["digits"].worker
        assert trial is not None
        os.kill(trial, signal.SIGKILL)
        for _ in range(600):
            route = scene.host.routes.get("digits")
            if route is not None and route.release == "1":
                break
            await asyncio.sleep(0.05)
        assert await scene.ask() == "1"
        assert scene.host.status("").models[0].trial_ended
        await scene.host.close()

    asyncio.run(story())
