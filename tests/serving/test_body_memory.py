"""Large bodies are received where workers read them, and the memory is free again afterwards."""

import mmap
import os
import random
import socket
import threading
from collections.abc import Mapping

import numpy as np
import pytest

from edgefleet.serving.body_memory import BodyMemory
from edgefleet.serving.limits import KEPT_BYTES
from support.asking import GUARD_S
from support.http1_wire import Raw, post
from support.serving_process import ServingProcess, serving
from support.wide_models import FLOATS, WideModel, wide

JSON = b"inference-header-content-length"


def used_bytes(memory: BodyMemory) -> int:
    return os.fstat(memory.descriptor).st_blocks * 512


def find_mixed_bodies(memory: BodyMemory, *, seed: int = 1) -> str | None:
    """The first body whose bytes another body has overwritten. None if there is none."""
    draw = random.Random(seed)
    held: list[tuple[memoryview, int]] = []
    for turn in range(400):
        if held and draw.random() < 0.45:
            held.pop(draw.randrange(len(held)))
        size = draw.choice((1, 5_000, 70_000, 300_000))
        room = memory.room(size, {JSON: b"%d" % draw.randrange(200)})
        if room is not None:
            assert len(room) == size
            room[:] = bytes([turn % 251]) * size
            held.append((room, turn % 251))
        for body, value in held:
            if body[0] != value or body[-1] != value:
                return f"turn {turn}"
    return None


def test_no_two_bodies_share_a_room() -> None:
    memory = BodyMemory(2 << 20)
    assert find_mixed_bodies(memory) is None
    assert memory.room(2 << 20, {}) is not None, "all rooms are free again"


class ForgetsBodies(BodyMemory):
    """Planted bug: a room is free while its body is still read."""

    def room(self, size_bytes: int, headers: Mapping[bytes, bytes]) -> memoryview | None:
        room = super().room(size_bytes, headers)
        self._rooms.clear()
        return room


def test_a_room_that_is_given_twice_is_found() -> None:
    assert find_mixed_bodies(ForgetsBodies(2 << 20)) is not None


def test_a_room_is_free_when_nothing_refers_to_its_body() -> None:
    memory = BodyMemory(1 << 20)
    room = memory.room(1 << 20, {})
    assert room is not None
    tensor = np.frombuffer(room[4:], np.float32)[10:]
    del room
    assert memory.room(1, {}) is None
    assert memory.offset(tensor) == 44
    del tensor
    assert memory.room(1 << 20, {}) is not None


def test_announced_bytes_take_no_memory_and_large_ones_are_returned() -> None:
    memory = BodyMemory(32 << 20)
    room = memory.room(16 << 20, {})
    assert room is not None
    assert used_bytes(memory) == 0
    room[:] = bytes(16 << 20)
    assert used_bytes(memory) == 16 << 20
    del room
    assert used_bytes(memory) == KEPT_BYTES


@pytest.mark.parametrize("json_bytes", [b"", b"0", b"1", b"301", b"x", b"9" * 13])
def test_the_tensors_behind_the_json_are_aligned(json_bytes: bytes) -> None:
    memory = BodyMemory(1 << 20)
    room = memory.room(300_000, {JSON: json_bytes} if json_bytes else {})
    assert room is not None
    skipped = int(json_bytes) if json_bytes.isdigit() and len(json_bytes) < 12 else 0
    tensor = np.frombuffer(room[skipped : skipped + 200_000], np.float64)
    assert tensor.flags.aligned
    assert memory.offset(tensor) % 64 == 0


def test_only_large_tensors_in_the_memory_have_an_offset() -> None:
    memory = BodyMemory(1 << 20)
    room = memory.room(400_000, {})
    assert room is not None
    inside = np.frombuffer(room, np.float32)
    assert memory.offset(inside) % mmap.PAGESIZE == 0
    assert memory.offset(inside[:10]) == -1
    assert memory.offset(inside.reshape(2, -1).T) == -1
    assert memory.offset(inside.copy()) == -1


def ask_in_parallel(process: ServingProcess, model: WideModel) -> list[str]:
    """The faults that clients find which send large bodies at the same time."""
    faults: list[str] = []

    def ask(seed: int) -> None:
        random_numbers = np.random.default_rng(seed)
        host, _, port = process.address.rpartition(":")
        client = Raw(socket.create_connection((host, int(port)), GUARD_S))
        for turn in range(25):
            given = random_numbers.normal(size=(1, FLOATS)).astype(np.float32)
            names = ("double",) if turn % 2 else ("double", "found")
            head, data = model.request(given, names, padding=turn)
            line = f"Inference-Header-Content-Length: {len(head)}"
            client.send(post("/v2/models/digits/infer", head + data, line))
            faults.extend(model.faults(client.answer(), given, names))
        client.close()

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return faults


@pytest.mark.parametrize("isolation", ["shared", "process"])
def test_large_bodies_of_several_clients_are_answered_exactly(
    tmp_path_factory: pytest.TempPathFactory, isolation: str
) -> None:
    model = wide(tmp_path_factory.mktemp("model") / "m.onnx")
    with serving(tmp_path_factory.mktemp("serving")) as process:
        process.apply(model.activate(isolation))
        assert ask_in_parallel(process, model) == []


def test_answers_stay_right_when_the_memory_of_a_worker_has_grown(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    model = wide(tmp_path_factory.mktemp("model") / "m.onnx")
    with serving(tmp_path_factory.mktemp("serving")) as process:
        process.apply(model.activate("process"))
        worker = process.status().models[0].worker
        host, _, port = process.address.rpartition(":")
        client = Raw(socket.create_connection((host, int(port)), GUARD_S))
        for count in (1, 1, 1, 8, 1, 1, 8, 1, 8):  # known shapes are written to in place
            given = np.random.default_rng(count).normal(size=(count, FLOATS)).astype(np.float32)
            head, data = model.request(given, ("double",))
            line = f"Inference-Header-Content-Length: {len(head)}"
            client.send(post("/v2/models/digits/infer", head + data, line))
            assert model.faults(client.answer(), given, ("double",)) == []
        client.close()
        assert process.status().models[0].worker == worker, "the worker has crashed"


class DoublesWrongly(WideModel):
    """Planted bug: one number of the expected answer is another."""

    def double(self, given: np.ndarray) -> np.ndarray:
        wrong = super().double(given)
        wrong[0, -1] += 1
        return wrong


def test_a_wrong_answer_to_a_large_body_is_found(tmp_path_factory: pytest.TempPathFactory) -> None:
    model = wide(tmp_path_factory.mktemp("model") / "m.onnx", DoublesWrongly)
    with serving(tmp_path_factory.mktemp("serving")) as process:
        process.apply(model.activate("process"))
        assert ask_in_parallel(process, model)
