"""The CPU time of each model's inferences: in the shared process, in a worker, and in the runtime's threads."""

import threading
from pathlib import Path

import numpy as np
import pytest

from edgefleet.protocol.serving import ModelStatus, ServedModel
from edgefleet.serving.cpu_use import RunClock, foreign_threads
from edgefleet.serving.loading import load_model
from edgefleet.serving.threads import VARIABLE
from support.asking import Asker, digits
from support.serving_process import ServingProcess, serving
from support.tiny_models import TinyModel, classifier, pixels

REQUESTS = 60


def asked(process: ServingProcess, model: TinyModel) -> ModelStatus:
    """The status after some requests to the release."""
    with Asker(process.address, digits({"a": model, "b": model})) as asker:
        asker.wait_for_answers(REQUESTS)
    assert asker.faults == []
    return process.model()


def cpu_us(status: ModelStatus) -> float:
    return 1e6 * status.stats.cpu_s / status.stats.requests


@pytest.mark.parametrize("in_worker", [False, True], ids=["shared", "worker"])
def test_a_model_with_ten_times_the_layers_takes_more_cpu_time(
    tmp_path: Path, in_worker: bool
) -> None:
    found: list[float] = []
    for chain in (30, 300):
        model = classifier(tmp_path / f"{chain}.onnx", chain=chain)
        wanted = (
            ServedModel(model="digits", confirmed=None, trial=model.served("b"))
            if in_worker
            else model.activate("a")
        )
        with serving(tmp_path) as process:
            process.apply(wanted)
            status = asked(process, model)
            assert (status.worker is not None) is in_worker
            assert status.stats.process_kib > 10_000
            found.append(cpu_us(status))
    assert found[1] > 3 * found[0] > 0


def test_the_cpu_time_of_one_model_is_not_that_of_another_in_the_same_process(
    tmp_path: Path,
) -> None:
    light = classifier(tmp_path / "light.onnx")
    heavy = classifier(tmp_path / "heavy.onnx", chain=300)
    with serving(tmp_path) as process:
        process.apply(heavy.activate("a", "heavy"), light.activate("a"))
        asked(process, light)
        assert process.model("heavy").stats.cpu_s == 0
        assert cpu_us(process.model()) > 0


def wide(folder: Path) -> TinyModel:
    """A model whose layers are large enough for the threads of the runtime."""
    return classifier(folder / "wide.onnx", chain=20, max_batch=512)


def test_the_threads_of_the_runtime_count_for_their_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = wide(tmp_path)
    given = {"pixels": pixels(512)}
    totals: list[float] = []
    for threads in (1, 2):
        monkeypatch.setenv(VARIABLE, str(threads))
        loaded = load_model(model.path, model.variant).model
        assert len(loaded.threads) == threads - 1
        clock, caller = RunClock(loaded.threads), RunClock(())
        measured = own = 0
        for _ in range(20):
            clock.start()
            caller.start()
            loaded.run(given, ["probabilities"])
            own += caller.stop()
            measured += clock.stop()
        totals.append(measured)
        assert measured >= own
        if threads == 2:
            assert measured > 1.2 * own, "the second thread is not counted"
    assert totals[1] > 0.5 * totals[0], "the work is the same"


def test_threads_that_python_started_are_not_those_of_a_library() -> None:
    before = foreign_threads()
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    assert foreign_threads() == before
    stop.set()
    thread.join()


def test_a_thread_that_has_ended_uses_no_cpu_time() -> None:
    numbers: list[int] = []
    thread = threading.Thread(target=lambda: numbers.append(threading.get_native_id()))
    thread.start()
    thread.join()
    clock = RunClock(numbers)
    clock.start()
    assert np.isfinite(clock.stop())
