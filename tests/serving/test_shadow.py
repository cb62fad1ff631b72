"""A shadow answers a share of the requests, and no caller gets its answers."""

import dataclasses
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from edgefleet.base.errors import DeviceError
from edgefleet.protocol.comparisons import Elementwise
from edgefleet.protocol.release import Quality
from edgefleet.protocol.serving import ServedModel, ServedShadow
from edgefleet.protocol.shadow import ShadowStatus
from edgefleet.serving.shadow import Differs, Sampler, ShadowCounts, check_interface
from support.asking import Asker, digits
from support.serving_process import ServingProcess, serving
from support.tiny_models import TinyModel, classifier

LABELS = np.array([[0.1, 0.9], [0.8, 0.2]], np.float32)


def counts(tmp_path: Path) -> ShadowCounts:
    model = classifier(tmp_path / "m.onnx")
    return ShadowCounts(ServedShadow(release=model.served("2"), share=1.0))


def scores(top: int, confidence: float = 0.91) -> dict[str, np.ndarray]:
    row = np.full(10, (1 - confidence) / 9, np.float32)
    row[top] = confidence
    return {"probabilities": row[np.newaxis]}


def test_the_sampler_takes_its_share_of_any_number_of_requests_and_of_every_second_one() -> None:
    sampler = Sampler(0.05)
    taken = [sampler.takes() for _ in range(10_000)]
    assert sum(taken) == 500
    assert 245 <= sum(taken[::2]) <= 255
    never = Sampler(0.0)
    assert not any(never.takes() for _ in range(100))
    always = Sampler(1.0)
    assert all(always.takes() for _ in range(100))


def test_the_counters_say_agreement_confidence_errors_and_an_example(tmp_path: Path) -> None:
    mine = counts(tmp_path)
    mine.answered(scores(3), scores(3, 0.95), cpu_ns=1_000_000, run_us=900)
    mine.answered(scores(4), scores(3), cpu_ns=1_000_000, run_us=1100)
    mine.failed(DeviceError("inference_failed", "The model failed: out of memory."))
    status = mine.status(worker=1)
    assert (status.samples, status.errors, status.compared) == (3, 1, 2)
    assert status.disagreement == 1.0
    assert status.difference == "case 0 of probabilities is class 4 instead of 3"
    assert status.confidence_before_sum == pytest.approx(0.95 + 0.91)
    assert status.confidence_sum == pytest.approx(0.91 + 0.91)
    assert (status.cpu_s, status.error_example) == (0.002, "The model failed: out of memory.")
    assert 1000 <= status.latency_us_p95 <= 1300


@pytest.mark.parametrize(
    "wrong",
    [
        {"probabilities": np.full((1, 10), np.nan, np.float32)},
        {"probabilities": np.zeros((1, 9), np.float32)},
        {"probabilities": np.zeros((1, 10), np.float64)},
    ],
    ids=["not a number", "another shape", "another datatype"],
)
def test_an_answer_that_is_none_is_an_error_of_the_candidate(
    tmp_path: Path, wrong: dict[str, np.ndarray]
) -> None:
    mine = counts(tmp_path)
    mine.answered(wrong, scores(3), cpu_ns=1, run_us=1)
    assert (mine.samples, mine.errors, mine.confidence_count) == (1, 1, 0)
    assert mine.error_example


def test_the_comparison_is_that_of_the_golden_set(tmp_path: Path) -> None:
    model = classifier(tmp_path / "m.onnx")
    close = Elementwise(outputs=("probabilities",), absolute=0.02, relative=0.0)
    mine = ShadowCounts(ServedShadow(release=model.served("2"), share=1.0, comparison=close))
    mine.answered(scores(3, 0.91), scores(3, 0.90), cpu_ns=1, run_us=1)
    mine.answered(scores(3, 0.91), scores(3, 0.80), cpu_ns=1, run_us=1)
    assert mine.disagreement == 1.0, "the same class, but another value"
    assert "instead of 0.8" in mine.difference


def test_each_release_has_its_own_kind_of_scores(tmp_path: Path) -> None:
    mine = counts(tmp_path)
    mine.compare_with(Quality(output="probabilities", scores="logits"))
    logits = {"probabilities": np.log(scores(3, 0.91)["probabilities"])}
    mine.answered(scores(3, 0.80), logits, cpu_ns=1, run_us=1)
    assert mine.confidence == pytest.approx([0.91, 0.80], abs=1e-3)


def test_another_interface_cannot_be_compared(tmp_path: Path) -> None:
    old = classifier(tmp_path / "a.onnx").variant
    new = classifier(tmp_path / "b.onnx", input_name="image").variant
    check_interface(old, old.inputs, ["probabilities"], ["probabilities"])
    with pytest.raises(Differs, match="other inputs"):
        check_interface(new, old.inputs, ["probabilities"], ["probabilities"])
    with pytest.raises(Differs, match="no output scores"):
        check_interface(old, old.inputs, ["probabilities"], ["scores"])


def with_shadow(active: TinyModel, candidate: TinyModel, share: float = 1.0) -> ServedModel:
    shadow = ServedShadow(release=candidate.served("b"), share=share)
    return ServedModel(model="digits", confirmed=active.served("a"), shadow=shadow)


def shadow_once(process: ServingProcess, is_so: Callable[[ShadowStatus], bool]) -> ShadowStatus:
    """The status of the shadow once it is so."""
    ends = time.monotonic() + 60
    while True:
        found = process.model().shadow
        assert found is not None
        if is_so(found):
            return found
        assert time.monotonic() < ends, found
        time.sleep(0.05)


def pid_of(found: ShadowStatus) -> int:
    assert found.worker is not None
    return found.worker


def test_a_bad_candidate_is_found_and_every_caller_gets_the_active_release(
    tmp_path: Path,
) -> None:
    models = {name: classifier(tmp_path / f"{name}.onnx", seed=seed)
              for seed, name in enumerate("ab")}  # fmt: skip
    with serving(tmp_path) as process:
        process.activate(with_shadow(models["a"], models["b"]))
        with Asker(process.address, digits(models), pause_s=0.005) as asker:
            found = shadow_once(process, lambda one: one.samples >= 20)
            assert (found.release, found.ready, found.ended) == ("b", True, "")
            assert found.errors == 0
            assert found.disagreement == found.compared
            assert "is class" in found.difference
            assert found.cpu_s > 0
            assert os.sched_getscheduler(pid_of(found)) == os.SCHED_IDLE
            # The same answers: a candidate of another digest, whose weights are those of a.
            same = dataclasses.replace(models["a"], path=tmp_path / "a.onnx")
            process.activate(with_shadow(models["a"], same))
            found = shadow_once(process, lambda one: one.samples >= 20)
            assert (found.disagreement, found.difference) == (0.0, "")
            process.activate(models["a"].activate("a"))
            assert process.model().shadow is None
            asker.wait_for_answers(1)
        assert not Path(f"/proc/{pid_of(found)}").exists(), "its process is gone"
        assert asker.faults == []
        assert set(asker.answers) == {"a"}


@pytest.mark.long
def test_a_share_of_the_requests_is_chosen(tmp_path: Path) -> None:
    model = classifier(tmp_path / "a.onnx")
    with serving(tmp_path) as process:
        process.activate(with_shadow(model, model, share=0.1))
        shadow_once(process, lambda one: one.ready)
        with Asker(process.address, digits({"a": model})) as asker:
            asker.wait_for_answers(300)
        found = shadow_once(process, lambda one: one.asked >= 300)
        chosen = found.samples + sum(found.skipped.values())
        assert abs(chosen - found.asked * 0.1) <= 2


def test_a_candidate_without_memory_is_not_loaded_and_says_why(tmp_path: Path) -> None:
    model = classifier(tmp_path / "a.onnx")
    large = dataclasses.replace(model, variant=replace(model.variant, memory_limit_mib=0))
    with serving(tmp_path) as process:
        process.activate(with_shadow(model, large))
        found = shadow_once(process, lambda one: bool(one.ended))
        assert (found.cause, found.fault, found.ready) == ("memory_short", False, False)
        assert "the memory limit of the variant is 0 MiB" in found.ended
        assert process.model().ready


@pytest.mark.long
def test_a_candidate_that_crashes_is_at_fault_and_no_request_fails(tmp_path: Path) -> None:
    model = classifier(tmp_path / "a.onnx")
    with serving(tmp_path) as process:
        process.activate(with_shadow(model, model))
        shadow_once(process, lambda one: one.ready)
        with Asker(process.address, digits({"a": model}), pause_s=0.005) as asker:
            found = shadow_once(process, lambda one: one.samples >= 1)
            os.kill(pid_of(found), signal.SIGSEGV)
            found = shadow_once(process, lambda one: bool(one.ended))
        assert (found.cause, found.fault) == ("serving_crashed", True)
        assert "SIGSEGV" in found.ended
        assert asker.faults == []
