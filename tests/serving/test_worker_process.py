"""A worker loads when a core is idle, and runs fast models on the core of the event loop."""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from edgefleet.protocol.serving import Apply
from edgefleet.serving import worker_process, worker_release
from edgefleet.serving.active_release import Release
from edgefleet.serving.limits import LEARN_RUNS
from edgefleet.serving.model_host import ModelHost
from edgefleet.serving.worker_process import WorkerProcess
from support.tiny_models import TinyModel, classifier, pixels


class Started:
    """The workers that were started, whether each was patient, and their policies at the start."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.patient: list[bool] = []
        self.pids: list[int] = []
        self.policies: list[int] = []
        start = WorkerProcess.start

        def noted(bodies: int, *, patient: bool) -> WorkerProcess:
            process = start(bodies, patient=patient)
            self.patient.append(patient)
            self.pids.append(process.pid)
            self.policies.append(os.sched_getscheduler(process.pid))
            return process

        monkeypatch.setattr(WorkerProcess, "start", noted)


def run(model: TinyModel, story: Callable[[Release], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        host = ModelHost()
        isolated = replace(model.activate("1"), isolation="process")
        await host.apply(Apply(generation=1, models=(isolated,)))
        await story(host.routes["digits"])
        await host.close()

    asyncio.run(whole())


async def infer(release: Release) -> Any:
    inferred = release.infer({"pixels": pixels(1)}, ["probabilities"])
    return inferred if isinstance(inferred, tuple) else await inferred


def policies(pid: int) -> set[int]:
    """The scheduling policies of the threads of a process."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            found.add(os.sched_getscheduler(int(task.name)))
        except ProcessLookupError:
            continue
    return found


@pytest.mark.parametrize(
    ("threads", "patient_s", "attempts"),
    [(1, 60.0, [True]), (1, 0.001, [True, False]), (2, 60.0, [False])],
    ids=["a core is idle", "no core is idle in time", "several threads"],
)
def test_a_release_is_loaded_patiently_first(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    threads: int,
    patient_s: float,
    attempts: list[bool],
) -> None:
    started = Started(monkeypatch)
    monkeypatch.setattr(worker_release, "thread_count", lambda: threads)
    monkeypatch.setattr(worker_release, "WORKER_PATIENT_LOAD_S", patient_s)

    async def story(release: Release) -> None:
        assert started.patient == attempts
        assert release.worker == started.pids[-1]
        await infer(release)

    run(classifier(tmp_path / "m.onnx"), story)


def test_a_worker_that_never_loads_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_release, "WORKER_PATIENT_LOAD_S", 0.001)
    monkeypatch.setattr(worker_release, "WORKER_LOAD_S", 0.001)
    started = Started(monkeypatch)

    async def story(release: Release) -> None:
        raise AssertionError(f"release {release.release} is served")

    with pytest.raises(Exception, match=r"did not load release 1 within 0\.001 s") as caught:
        run(classifier(tmp_path / "m.onnx"), story)
    assert getattr(caught.value, "code", "") == "inference_failed"
    assert not any(Path(f"/proc/{pid}").exists() for pid in started.pids)


@pytest.mark.parametrize(
    ("patient", "rises"), [(True, True), (True, False), (False, True), (False, False)]
)
def test_a_patient_worker_has_low_priority_while_it_loads_as_far_as_it_can_have_the_usual_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patient: bool, rises: bool
) -> None:
    rises = rises and worker_process.may_rise()
    monkeypatch.setattr(worker_process, "may_rise", lambda: rises)
    started = Started(monkeypatch)
    monkeypatch.setattr(worker_release, "thread_count", lambda: 1 if patient else 2)
    seen: set[int] = set()

    async def watch() -> None:
        while True:
            if started.pids:
                seen.update(policies(started.pids[0]))
            await asyncio.sleep(0.002)

    async def whole() -> None:
        host = ModelHost()
        watching = asyncio.ensure_future(watch())
        isolated = replace(classifier(tmp_path / "m.onnx").activate("1"), isolation="process")
        await host.apply(Apply(generation=1, models=(isolated,)))
        watching.cancel()
        await infer(host.routes["digits"])
        # The last one: on a busy machine a patient worker may load for too long, and is replaced.
        assert os.sched_getscheduler(started.pids[-1]) == os.SCHED_OTHER, "it runs the model"
        await host.close()

    asyncio.run(whole())
    assert (os.SCHED_IDLE in seen) is patient
    assert (started.policies[0] == os.SCHED_IDLE) is (patient and rises)


def test_a_fast_model_has_the_core_of_the_event_loop_until_an_answer_is_awaited(
    tmp_path: Path,
) -> None:
    async def story(release: Release) -> None:
        worker = release.worker
        assert worker is not None
        every = os.sched_getaffinity(0)
        for _ in range(LEARN_RUNS):
            assert os.sched_getaffinity(worker) == every
            await infer(release)
        await infer(release)
        assert len(os.sched_getaffinity(worker)) == 1
        os.kill(worker, signal.SIGSTOP)
        coming = asyncio.ensure_future(infer(release))
        await asyncio.sleep(0.05)
        assert os.sched_getaffinity(worker) == every
        os.kill(worker, signal.SIGCONT)
        await coming
        await infer(release)
        assert len(os.sched_getaffinity(worker)) == 1

    run(classifier(tmp_path / "m.onnx"), story)
