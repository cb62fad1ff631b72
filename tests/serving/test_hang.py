"""A model that never returns: swaps, stops and figures of the serving process do not wait for it."""

import os
import signal
import threading
import time
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace
from tritonclient import http as triton

from edgefleet.agent import limits
from edgefleet.protocol.serving import ModelStatus, ServedModel
from edgefleet.serving.limits import LEARN_RUNS, STOP_S
from support.asking import ask
from support.serving_process import ServingProcess, serving
from support.tiny_models import HANGS_ABOVE, PIXELS, TinyModel, classifier

KINDS = pytest.mark.parametrize(
    "kind", ["event loop", "worker", pytest.param("thread", marks=pytest.mark.long)]
)


@pytest.fixture
def process(tmp_path: Path) -> Generator[ServingProcess]:
    with serving(tmp_path) as running:
        yield running


def hanging(folder: Path, kind: str) -> TinyModel:
    more = {"hidden": 10, "max_batch": 512} if kind != "event loop" else {}
    return classifier(folder / "hanging.onnx", hangs=True, **more)


def wanted(model: TinyModel, kind: str, release: str = "1") -> ServedModel:
    one = model.activate(release)
    return replace(one, isolation="process") if kind == "worker" else one


class Hung:
    """Clients in threads, each with one request on which the model hangs."""

    def __init__(self, address: str, count: int = 1) -> None:
        self.releases: list[str] = []
        self.errors: list[str] = []
        self._address = address
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "a request has no end"

    def _ask(self) -> None:
        given = np.full((2, PIXELS), 2 * HANGS_ABOVE, np.float32)
        tensor = triton.InferInput("pixels", [2, PIXELS], "FP32").set_data_from_numpy(given)
        with triton.InferenceServerClient(self._address, network_timeout=60.0) as client:
            try:
                answer = client.infer("digits", [tensor])
            except Exception as error:  # noqa: BLE001 - of the client's library
                self.errors.append(str(error))
            else:
                self.releases.append(str(answer.get_response()["model_version"]))


def until_in_flight(process: ServingProcess, count: int) -> ModelStatus:
    until = time.monotonic() + 60
    while (mine := process.model()).stats.in_flight < count:
        assert time.monotonic() < until
        time.sleep(0.02)
    return mine


def test_the_age_of_the_oldest_request_and_of_the_last_answer_are_reported(
    process: ServingProcess, tmp_path: Path
) -> None:
    model = hanging(tmp_path, "thread")
    process.activate(wanted(model, "thread"))
    first = process.model().stats
    assert (first.oldest_in_flight_s, first.last_answer_s) == (0.0, None)
    assert ask(process, model) == "1"
    Hung(process.address)
    before = until_in_flight(process, 1).stats
    Hung(process.address)
    after = until_in_flight(process, 2).stats
    assert after.oldest_in_flight_s > before.oldest_in_flight_s, "the second one is younger"
    assert after.last_answer_s is not None
    assert before.last_answer_s is not None
    assert after.last_answer_s > before.last_answer_s


@pytest.mark.parametrize("kind", ["thread", "worker"])
def test_a_swap_ends_a_release_that_hangs_and_its_clients_are_answered_by_the_next(
    process: ServingProcess, tmp_path: Path, kind: str
) -> None:
    old, new = hanging(tmp_path, kind), classifier(tmp_path / "good.onnx")
    worker = process.activate(wanted(old, kind)).worker
    clients = Hung(process.address, count=4)
    until_in_flight(process, 4)
    status = process.apply(new.activate("2"), generation=2)
    clients.join()
    assert clients.releases == ["2"] * 4
    assert ask(process, new) == "2"
    if kind == "worker":
        assert status.stuck == ()
        assert not Path(f"/proc/{worker}").exists()
    else:
        assert [(one.model, one.release) for one in status.stuck] == [("digits", "1")]
        os.kill(process.pid, signal.SIGKILL)  # nothing else ends it


def test_a_request_that_ends_its_worker_is_not_asked_of_the_same_release_again(
    process: ServingProcess, tmp_path: Path
) -> None:
    model = hanging(tmp_path, "worker")
    mine = process.activate(wanted(model, "worker"))
    assert mine.worker is not None
    client = Hung(process.address)
    until_in_flight(process, 1)
    os.kill(mine.worker, signal.SIGKILL)
    client.join()
    assert client.releases == []
    stats = process.model().stats
    assert (stats.requests, stats.errors, stats.in_flight) == (1, 1, 0), "it is counted"


@KINDS
def test_sigterm_is_obeyed_whatever_a_model_does(tmp_path: Path, kind: str) -> None:
    model = hanging(tmp_path, kind)
    with ExitStack() as stack:
        process = stack.enter_context(serving(tmp_path))
        worker = process.activate(wanted(model, kind)).worker
        if kind == "event loop":
            for _ in range(LEARN_RUNS):
                ask(process, model)
        client = Hung(process.address)
        if kind == "event loop":
            assert ask_is_blocked(process), "the model holds the event loop"
        else:
            until_in_flight(process, 1)
        os.kill(process.pid, signal.SIGTERM)
        code = process.stop()
        assert code in (0, 1), "it ended itself"
        client.join()
    while worker is not None and Path(f"/proc/{worker}").exists():
        time.sleep(0.05)
    assert STOP_S < limits.SERVING_STOP_S, "the agent need not kill it"


def ask_is_blocked(process: ServingProcess) -> bool:
    """Whether the process answers no status at last."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            process.control.request("GET", "/control/status", timeout_s=0.5)
        except Exception:  # noqa: BLE001 - any failure is one
            process.control.close()
            return True
    return False
