"""Requests of one turn of the event loop go as one run, and each gets its own answer."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgefleet.base.errors import DeviceError, EdgefleetError
from edgefleet.base.later import Later
from edgefleet.serving import active_release
from edgefleet.serving.active_release import ActiveRelease, Release, ReleaseEnded
from edgefleet.serving.inference import Answered, Asked, Inferences
from edgefleet.serving.model_host import ModelHost
from edgefleet.serving.row_wise import PROOFS
from edgefleet.serving.run_marks import RunMarks
from support.tiny_models import CLASSES, PIXELS, classifier

Arrays = dict[str, np.ndarray]


class Model:
    """The scores of an item are one-hot at its first value. Counts its runs."""

    threads: Sequence[int] = ()
    run_us = 0

    def __init__(self) -> None:
        self.batches: list[int] = []

    def run(self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]) -> list[np.ndarray]:
        pixels = inputs["pixels"]
        self.batches.append(len(pixels))
        if (pixels[:, 1] > 0).any():
            raise DeviceError("inference_failed", "The model failed: a bad picture.")
        return [np.eye(CLASSES, dtype=np.float32)[pixels[:, 0].astype(int)]]

    def close(self) -> None:
        return


class Quantised(Model):
    """Scales the whole batch, as a dynamically quantised model does."""

    def run(self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]) -> list[np.ndarray]:
        (scores,) = super().run(inputs, outputs)
        return [(scores / (1 + inputs["pixels"].max())).astype(np.float32)]


class Codec:
    """Requests are arrays; a reply is the release and the top class of each item."""

    def read(self, request: np.ndarray, active: Release) -> Asked[None]:
        return Asked({"pixels": request}, ("probabilities",), None)

    def reply(self, answered: Answered[None]) -> tuple[str, list[int]]:
        return answered.active.release, answered.made["probabilities"].argmax(axis=1).tolist()


def pictures(*values: int, bad: bool = False) -> np.ndarray:
    made = np.zeros((len(values), PIXELS), np.float32)
    made[:, 0] = values
    made[:, 1] = bad
    return made


class Clock:
    """Every run costs 1000 ns."""

    def start(self) -> None:
        return

    def stop(self) -> int:
        return 1000


@pytest.fixture(autouse=True)
def short_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are short, also on a busy machine."""
    monkeypatch.setattr(active_release, "RunClock", lambda _: Clock())


class World:
    """A host that serves ``model`` as release 1, whose runs are known to be short."""

    def __init__(self, folder: Path, model: Model, max_batch: int = 8) -> None:
        self.tiny = classifier(folder / "tiny.onnx", max_batch=max_batch)
        self.host = ModelHost()
        self.model = model
        self.inferences = Inferences(self.host)
        self.active = self.serve("1", model)

    def serve(self, release: str, model: Model) -> ActiveRelease:
        loaded: Any = model
        active = ActiveRelease("digits", self.tiny.served(release), loaded, marks=RunMarks())
        active.times.learn(tuple((size, 5.0) for size in range(20)))
        self.host.routes = {"digits": active}
        return active

    async def turn(self, *requests: np.ndarray) -> list[Any]:
        """The replies to requests of one turn; an error is its code."""
        await asyncio.sleep(0)  # a future that is done ends no turn
        coming = [self.ask(request) for request in requests]
        return [await one for one in coming]

    def ask(self, request: np.ndarray) -> "asyncio.Future[Any]":
        made: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        try:
            reply = self.inferences.infer(Codec(), request, "digits")
        except EdgefleetError as error:
            made.set_result(error.code)
            return made
        if not isinstance(reply, Later):
            made.set_result(reply)
            return made
        reply.then(
            lambda result: made.set_result(
                result.code if isinstance(result, EdgefleetError) else result
            )
        )
        return made

    async def prove(self) -> None:
        for _ in range(PROOFS):
            await self.turn(pictures(1), pictures(2))
        self.model.batches.clear()


def played(world: World, *turns: Sequence[np.ndarray]) -> list[list[Any]]:
    async def play() -> list[list[Any]]:
        await world.prove()
        return [await world.turn(*turn) for turn in turns]

    return asyncio.run(play())


def test_each_caller_gets_the_answer_to_its_own_request(tmp_path: Path) -> None:
    world = World(tmp_path, Model())
    turn = [pictures(3), pictures(1, 4), pictures(5), pictures(9, 2)]
    assert played(world, turn) == [[("1", [3]), ("1", [1, 4]), ("1", [5]), ("1", [9, 2])]]
    assert world.model.batches == [6]


def test_a_batch_is_as_large_as_the_manifest_allows(tmp_path: Path) -> None:
    world = World(tmp_path, Model(), max_batch=4)
    (replies,) = played(world, [pictures(value, value) for value in (1, 2, 3)])
    assert replies == [("1", [1, 1]), ("1", [2, 2]), ("1", [3, 3])]
    assert world.model.batches == [4, 2]


def test_a_model_that_scales_the_batch_is_run_for_each_request_alone(tmp_path: Path) -> None:
    world = World(tmp_path, Quantised())
    played(world, [pictures(1), pictures(8)])
    assert world.active.rows is not None
    assert not world.active.rows.possible
    assert world.model.batches == [1, 1]


def test_equal_requests_do_not_prove_that_rows_are_independent(tmp_path: Path) -> None:
    world = World(tmp_path, Quantised())

    async def play() -> None:
        for _ in range(2 * PROOFS):
            await world.turn(pictures(3), pictures(3))

    asyncio.run(play())
    assert world.active.rows is not None
    assert world.active.rows.possible
    assert not world.active.rows.proven


def test_a_request_that_fails_the_model_fails_alone(tmp_path: Path) -> None:
    world = World(tmp_path, Model())
    (replies,) = played(world, [pictures(3), pictures(4, bad=True), pictures(5)])
    assert replies == [("1", [3]), "inference_failed", ("1", [5])]
    assert world.model.batches == [3, 1, 1, 1]
    assert world.active.stats.errors == 1


def test_a_batch_counts_as_its_requests_would_alone(tmp_path: Path) -> None:
    one, many = World(tmp_path, Model()), World(tmp_path, Model())
    requests = [pictures(3), pictures(1, 4), pictures(5)]
    played(one, *([request] for request in requests))
    played(many, requests)
    for name in (
        "requests", "errors", "confidence_sum", "confidence_count", "confidence", "classes", "inputs",
    ):  # fmt: skip
        assert getattr(one.active.stats, name) == getattr(many.active.stats, name), name
    assert sum(many.active.stats.latency.counts) == sum(one.active.stats.latency.counts)


def test_the_time_of_a_batch_is_counted_once(tmp_path: Path) -> None:
    world = World(tmp_path, Model())

    async def play() -> tuple[int, int, int]:
        await world.prove()
        before = world.active.stats.cpu_ns, world.active.stats.durations.runs
        await world.turn(pictures(3), pictures(4), pictures(5))
        stats = world.active.stats
        return stats.cpu_ns - before[0], stats.durations.runs - before[1], stats.durations.items

    cpu_ns, runs, items = asyncio.run(play())
    assert (cpu_ns, runs) == (1000, 1)
    assert items == 2 * PROOFS + 3


def test_a_request_whose_release_was_swapped_out_in_its_turn_is_asked_of_the_next(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, Model())
    after = Model()

    async def play() -> list[Any]:
        await world.prove()
        coming = [world.ask(pictures(3)), world.ask(pictures(4))]
        world.serve("2", after)
        return [await one for one in coming]

    assert asyncio.run(play()) == [("2", [3]), ("2", [4])]
    assert world.model.batches == []
    assert sum(after.batches) >= 2


def test_a_release_that_ends_at_the_end_of_the_turn_gives_its_requests_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, Model())

    def ends(*_: object) -> None:
        world.serve("2", Model())
        raise ReleaseEnded(ran=False)

    async def play() -> list[Any]:
        await world.prove()
        coming = [world.ask(pictures(3)), world.ask(pictures(4))]
        monkeypatch.setattr(world.active, "infer", ends)
        return [await one for one in coming]

    assert asyncio.run(play()) == [("2", [3]), ("2", [4])]


def test_a_request_that_is_always_alone_does_not_wait_for_the_end_of_the_turn(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, Model())

    async def play() -> tuple[bool, list[Any]]:
        await world.prove()
        for _ in range(40):
            await world.turn(pictures(1))
        await asyncio.sleep(0)
        at_once = not isinstance(world.inferences.infer(Codec(), pictures(2), "digits"), Later)
        await world.turn(pictures(3), pictures(4))
        world.model.batches.clear()
        return at_once, await world.turn(pictures(3), pictures(4))

    assert asyncio.run(play()) == (True, [("1", [3]), ("1", [4])])
    assert world.model.batches == [2]
