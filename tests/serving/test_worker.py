"""A release in trial runs in a worker: its end harms no request and no other model."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from edgefleet.base.errors import EdgefleetError
from edgefleet.base.network import HttpLink
from edgefleet.http1.message import Reply, Request
from edgefleet.protocol.serving import Apply, ServedModel, ServedRelease
from edgefleet.serving import worker_release
from edgefleet.serving.active_release import Release
from edgefleet.serving.limits import SHARED_LOAD_BYTES
from edgefleet.serving.model_host import ModelHost
from edgefleet.serving.oip import OpenInference
from edgefleet.serving.routes import render_error
from support.asking import GUARD_S, Asker, announce, ask, cut, digits, two_models
from support.http1_wire import running
from support.serving_process import ServingProcess, serving
from support.tiny_models import TinyModel, classifier, pixels


def in_trial(
    incumbent: TinyModel | None, candidate: TinyModel, model: str = "digits"
) -> ServedModel:
    """Release ``b`` in trial beside the confirmed release ``a``."""
    confirmed = incumbent.served("a") if incumbent else None
    return ServedModel(model=model, confirmed=confirmed, trial=candidate.served("b"))


def wait_for(what: Callable[[], Any]) -> Any:
    until = time.monotonic() + GUARD_S
    while time.monotonic() < until:
        if found := what():
            return found
        time.sleep(0.01)
    raise AssertionError("it did not happen")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False


def check_isolated(process: ServingProcess) -> None:
    """The trial is in a worker of its own, and the confirmed releases are not."""
    status = process.status()
    for model in status.models:
        assert (model.worker not in (None, status.pid)) is model.on_trial, model


def test_a_trial_runs_in_a_worker_beside_the_confirmed_releases(tmp_path: Path) -> None:
    models = two_models(tmp_path)
    with serving(tmp_path) as process:
        process.apply(in_trial(models["a"], models["b"]), models["a"].activate("a", "other"))
        check_isolated(process)
        assert ask(process, models["b"]) == "b"
        assert ask(process, models["a"], "other") == "a"
        assert process.model().stats.requests == 1
        assert (process.model().on_trial, process.model("other").on_trial) == (True, False)


class LoadsTrialsHere(ModelHost):
    """Planted bug: the trial is loaded in the shared process."""

    async def _load(self, model: str, wanted: ServedRelease, *, in_worker: bool) -> Release:
        return await super()._load(model, wanted, in_worker=False)


@pytest.mark.parametrize(("host_class", "faulty"), [(ModelHost, False), (LoadsTrialsHere, True)])
def test_a_trial_that_is_loaded_in_the_shared_process_is_found(
    tmp_path: Path, host_class: type[ModelHost], faulty: bool
) -> None:
    models = two_models(tmp_path)

    async def workers() -> list[int | None]:
        host = host_class()
        await host.apply(Apply(generation=1, models=(in_trial(models["a"], models["b"]),)))
        found = [one.worker for one in host.status("").models if one.on_trial]
        await host.close()
        return found

    assert (asyncio.run(workers()) == [None]) is faulty


@pytest.mark.parametrize("slow", [False, True], ids=["prompt", "awaited"])
@pytest.mark.parametrize("sign", [signal.SIGSEGV, signal.SIGKILL])
def test_requests_under_way_in_a_worker_that_dies_are_asked_of_the_incumbent_again(
    tmp_path: Path, slow: bool, sign: signal.Signals
) -> None:
    models = two_models(tmp_path, slow=slow)
    with serving(tmp_path) as process:
        process.apply(in_trial(models["a"], models["b"]))
        first, second = (
            Asker(process.address, digits(models)),
            Asker(process.address, digits(models)),
        )
        with first, second:
            worker = process.model().worker
            assert worker is not None
            os.kill(worker, sign)
            for asker in (first, second):
                asker.wait_for_answers(20)
        for asker in (first, second):
            assert asker.faults == []
            assert asker.answers[0] == "b"
            assert asker.answers[-1] == "a"
        after = process.model()
        assert (after.release, after.ready, after.on_trial, after.worker) == (
            "a",
            True,
            False,
            None,
        )
        wait_for(lambda: sign.name in process.model().trial_ended)
        assert not alive(worker)


def test_a_trial_without_a_confirmed_release_that_dies_leaves_the_others_serving(
    tmp_path: Path,
) -> None:
    models = two_models(tmp_path)
    with serving(tmp_path) as process:
        process.apply(in_trial(None, models["b"]), models["a"].activate("a", "other"))
        worker = process.model().worker
        assert worker is not None
        os.kill(worker, signal.SIGABRT)
        wait_for(lambda: process.model().trial_ended)
        assert not process.model().ready
        link = HttpLink(process.url)
        assert link.request("GET", "/v2/models/digits/ready").status == 503
        assert link.request("GET", "/v2/health/ready").status == 503
        assert ask(process, models["a"], "other") == "a"


def test_going_back_is_a_change_of_route(tmp_path: Path) -> None:
    models = two_models(tmp_path)
    with serving(tmp_path) as process:
        process.activate(models["a"].activate("a"))
        ask(process, models["a"])
        process.apply(in_trial(models["a"], models["b"]))
        ask(process, models["b"])
        models["a"].path.unlink()  # nothing is loaded again
        back = process.activate(models["a"].activate("a"))
        assert (back.release, back.stats.requests, back.worker) == ("a", 0, None)
        assert ask(process, models["a"]) == "a"


def test_a_confirmed_release_moves_into_the_shared_process_and_keeps_its_counters(
    tmp_path: Path,
) -> None:
    models = two_models(tmp_path)
    with serving(tmp_path) as process:
        process.apply(in_trial(models["a"], models["b"]))
        worker = process.model().worker
        asker = Asker(process.address, digits(models))
        with asker:
            asker.wait_for_answers(20)
            after = process.activate(models["b"].activate("b"))
            asker.wait_for_answers(20)
        assert asker.faults == []
        assert (after.release, after.worker, after.on_trial) == ("b", None, False)
        assert 20 <= after.stats.requests <= len(asker.answers)
        assert worker is not None
        assert not alive(worker)


def test_worker_merge_fails_worker_stays(tmp_path: Path) -> None:
    models = two_models(tmp_path)
    with serving(tmp_path) as process:
        process.apply(in_trial(models["a"], models["b"]))
        worker = process.model().worker
        cut(models["b"].path)
        after = process.activate(models["b"].activate("b"))
        assert (after.release, after.worker, after.on_trial) == ("b", worker, False)
        assert ask(process, models["b"]) == "b"


def test_isolation_in_a_process_keeps_the_worker(tmp_path: Path) -> None:
    models = two_models(tmp_path)
    isolated = replace(models["b"].activate("b"), isolation="process")
    with serving(tmp_path) as process:
        process.apply(in_trial(models["a"], models["b"]))
        worker = process.model().worker
        assert process.activate(isolated).worker == worker
        assert process.activate(isolated).worker == worker
        assert process.activate(models["b"].activate("b")).worker is None
        moved = process.activate(isolated).worker
        assert moved not in (None, worker)
        assert ask(process, models["b"]) == "b"


def test_a_confirmed_release_whose_worker_died_is_loaded_again_by_the_next_apply(
    tmp_path: Path,
) -> None:
    model = classifier(tmp_path / "m.onnx")
    isolated = replace(model.activate("1"), isolation="process")
    with serving(tmp_path) as process:
        worker = process.activate(isolated).worker
        assert worker is not None
        os.kill(worker, signal.SIGKILL)
        wait_for(lambda: not process.model().ready)
        assert process.activate(isolated).ready
        assert ask(process, model) == "1"


def test_restart_of_serving_restores_all_in_one_apply(tmp_path: Path) -> None:
    models = two_models(tmp_path)
    wanted = (
        in_trial(models["a"], models["b"]),
        models["a"].activate("a", "second"),
        replace(models["b"].activate("b", "third"), isolation="process"),
    )
    with serving(tmp_path) as first:
        first.apply(*wanted)
        workers = [one.worker for one in first.status().models if one.worker is not None]
        first.kill()
    wait_for(lambda: not any(alive(worker) for worker in workers))
    with serving(tmp_path) as second:
        restored = second.apply(*wanted, generation=2)
        assert restored.generation == 2
        found = [(one.model, one.release, one.ready) for one in restored.models]
        assert found == [("digits", "b", True), ("second", "a", True), ("third", "b", True)]
        assert [one.worker is not None for one in restored.models] == [True, False, True]
        assert ask(second, models["b"]) == "b"
        assert ask(second, models["b"], "third") == "b"


def test_memory_of_small_model_is_its_own(tmp_path: Path) -> None:
    small = classifier(tmp_path / "small.onnx")
    large = classifier(tmp_path / "large.onnx", ballast_mib=40)
    large_mib = large.variant.artifact.size_bytes >> 20
    with serving(tmp_path) as process:
        status = process.apply(
            large.activate("1", "large"),
            small.activate("1", "small"),
            in_trial(small, small, "tried"),
        )
    found = {one.model: one.stats.memory_mib for one in status.models}
    check_memory(found, status.memory_mib, large_mib)


def check_memory(found: dict[str, int], process_mib: int, large_mib: int) -> None:
    assert found["large"] >= large_mib
    assert found["small"] < large_mib / 2
    assert found["tried"] < large_mib / 2
    assert process_mib > found["large"] + found["small"]


def test_memory_of_the_process_reported_as_the_models_is_found(tmp_path: Path) -> None:
    """Planted bug: the resident memory of the process is reported as the model's."""
    small = classifier(tmp_path / "small.onnx")
    large = classifier(tmp_path / "large.onnx", ballast_mib=40)
    with serving(tmp_path) as process:
        status = process.apply(large.activate("1", "large"), small.activate("1", "small"))
    wrong = {"large": status.memory_mib, "small": status.memory_mib, "tried": 0}
    with pytest.raises(AssertionError):
        check_memory(wrong, status.memory_mib, large.variant.artifact.size_bytes >> 20)


def test_a_large_model_is_loaded_in_the_shared_process_at_the_start_only(tmp_path: Path) -> None:
    small = classifier(tmp_path / "small.onnx")
    large = classifier(tmp_path / "large.onnx", ballast_mib=5)
    assert large.variant.artifact.size_bytes > SHARED_LOAD_BYTES
    models = small.activate("1", "small"), large.activate("1", "large")
    with serving(tmp_path) as process:
        assert [one.worker for one in process.apply(*models).models] == [None, None]
        process.apply(models[0])
        assert process.apply(*models).models[1].worker is not None, "other models are asked"
        assert ask(process, large, "large") == "1"


@pytest.mark.parametrize("way", ["confirmed", "trial"])
def test_an_apply_that_fails_for_one_model_changes_none_and_names_it(
    tmp_path: Path, way: str
) -> None:
    models = two_models(tmp_path)
    bad = classifier(tmp_path / "bad.onnx", seed=9)
    cut(bad.path)
    release = announce(bad.activate("c"), bad.path).confirmed
    with serving(tmp_path) as process:
        before = process.apply(models["a"].activate("a"), models["a"].activate("a", "gone"))
        with pytest.raises(EdgefleetError) as caught:
            process.apply(
                models["b"].activate("b"), ServedModel(model="new", **{way: release}), generation=2
            )
        assert (caught.value.code, caught.value.field) == ("not_a_model", "new")
        after = process.status()
        assert after.generation == 1
        assert [one.release for one in after.models] == [one.release for one in before.models]
        assert ask(process, models["a"]) == "a"
        assert ask(process, models["a"], "gone") == "a"
        process.apply(models["b"].activate("b"), generation=3)
        answer = HttpLink(process.url).request("GET", "/v2/models/gone")
        assert answer.status == 404
        assert "It serves: digits." in json.loads(answer.body)["error"]


def test_the_worker_ends_with_the_serving_process(tmp_path: Path) -> None:
    models = two_models(tmp_path)
    with serving(tmp_path) as process:
        process.apply(in_trial(models["a"], models["b"]))
        worker = process.model().worker
        assert worker is not None
        process.kill()
        wait_for(lambda: not alive(worker))


def test_large_tensors_and_many_shapes_pass_through_a_worker(tmp_path: Path) -> None:
    model = classifier(tmp_path / "m.onnx", max_batch=40_000)

    async def story() -> None:
        host = ModelHost()
        isolated = replace(model.activate("1"), isolation="process")
        await host.apply(Apply(generation=1, models=(isolated,)))
        release = host.routes["digits"]
        for count in (1, 3, 20_000, 2, 20_000, *range(1, 80), 40_000, 1):
            given = pixels(count)
            inferred = release.infer({"pixels": given}, ["probabilities"])
            outputs, lost_ns = inferred if isinstance(inferred, tuple) else await inferred
            np.testing.assert_allclose(outputs[0], model.probabilities(given), rtol=1e-3, atol=1e-6)
            assert lost_ns >= 0
        await host.close()

    asyncio.run(story())


def test_answers_name_the_generation_of_the_models(tmp_path: Path) -> None:
    models = two_models(tmp_path)
    with serving(tmp_path) as process:
        link = HttpLink(process.url)
        for generation, wanted in (
            (7, models["a"].activate("a")),
            (8, in_trial(None, models["b"])),
        ):
            process.apply(wanted, generation=generation)
            answer = link.request("POST", "/v2/models/digits/infer", body=BODY)
            assert answer.headers["edgefleet-generation"] == str(generation)


BODY = json.dumps(
    {"inputs": [{"name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": [0.5] * 64}]}
).encode()
INFER = Request("POST", "/v2/models/digits/infer", "", {}, BODY)


def test_a_worker_that_does_not_answer_is_killed_and_the_incumbent_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = two_models(tmp_path)

    async def story() -> None:
        host = ModelHost()
        await host.apply(Apply(generation=1, models=(in_trial(models["a"], models["b"]),)))
        monkeypatch.setattr(worker_release, "WORKER_RUN_S", 0.2)
        worker = host.routes["digits"].worker
        assert worker is not None
        os.kill(worker, signal.SIGSTOP)
        answers = [OpenInference(host)(INFER) for _ in range(3)]
        replies = [one if isinstance(one, Reply) else await one for one in answers]
        assert {json.loads(one.body)["model_version"] for one in replies} == {"a"}
        assert "did not answer a request" in host.status("").models[0].trial_ended
        await host.close()

    asyncio.run(story())


def test_the_way_to_the_worker_is_no_part_of_the_latency(tmp_path: Path) -> None:
    models = two_models(tmp_path)

    async def story() -> None:
        host = ModelHost()
        await host.apply(Apply(generation=1, models=(in_trial(models["a"], models["b"]),)))
        release = host.routes["digits"]
        worker = release.worker
        assert worker is not None
        os.kill(worker, signal.SIGSTOP)
        coming = OpenInference(host)(INFER)
        assert not isinstance(coming, Reply)
        await asyncio.sleep(1.0)
        os.kill(worker, signal.SIGCONT)
        assert (await coming).status == 200
        assert release.stats.requests == 1
        assert release.stats.latency.sum_us < 1_000_000
        await host.close()

    asyncio.run(story())


def test_a_swap_of_all_models_is_one_change_of_the_routes(tmp_path: Path) -> None:
    models = two_models(tmp_path)

    async def make() -> ModelHost:
        return ModelHost()

    host = asyncio.run(make())
    with running(OpenInference(host), render_error=render_error) as server:

        def apply(release: str) -> None:
            wanted = tuple(models[release].activate(release, name) for name in ("digits", "other"))
            task = host.apply(Apply(generation=1, models=wanted))
            asyncio.run_coroutine_threadsafe(task, server.loop).result(GUARD_S)

        apply("a")
        before = host.routes
        apply("b")
        assert {one.release for one in before.values()} == {"a"}
        assert {one.release for one in host.routes.values()} == {"b"}
