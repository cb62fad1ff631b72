"""Simulated devices behave as the real artifacts did in the real runtime."""

import threading
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest

from edgefleet.agent.state import InstalledRelease
from edgefleet.base.errors import OperatorError
from edgefleet.base.ids import sha256_hex
from edgefleet.examples import FOLDER
from edgefleet.optimize.release_folder import BuiltRelease, build_release
from edgefleet.protocol.wire import encode
from edgefleet.sim.load.draws import Draws
from edgefleet.sim.load.measure_release import MeasuringLaboratory, measure, read_field
from edgefleet.sim.load.serving_process import ModelBehaviour, Served, VirtualServing
from edgefleet.sim.load.worker_threads import Workers

EXAMPLES = FOLDER / "digits"
FIELD = read_field(EXAMPLES / "field.npz")


def release(number: int, profile: str = "raspberry_pi") -> tuple[BuiltRelease, InstalledRelease]:
    built = build_release(EXAMPLES / f"release-{number}", created_at=0.0)
    manifest = built.manifest
    variant = next(variant for variant in manifest.variants if variant.profile == profile)
    return built, InstalledRelease.of(manifest, sha256_hex(encode(manifest)), variant)


def measured(number: int) -> ModelBehaviour:
    built, installed = release(number)
    model = built.files[installed.variant.artifact.sha256]
    return measure(installed, model, built.files[installed.golden.artifact.sha256], FIELD)


def test_a_good_release_is_sure_of_what_devices_see() -> None:
    found = measured(2)
    assert found.proof.passed
    assert found.accuracy > 0.95
    assert fmean(found.confidences) > 0.9
    assert list(found.confidences) == sorted(found.confidences)
    assert found.latency_us_p50 <= found.latency_us_p95


def test_release_3_passes_its_golden_set_and_collapses_in_the_field() -> None:
    found = measured(3)
    assert found.proof.passed
    assert found.accuracy < 0.5
    assert fmean(found.confidences) < fmean(measured(2).confidences) - 0.5


def test_release_4_fails_its_golden_set() -> None:
    found = measured(4)
    assert not found.proof.passed
    assert found.proof.reason == "golden_failed"


def test_a_file_that_is_no_model_is_a_failed_load(tmp_path: Path) -> None:
    built, installed = release(2)
    (tmp_path / "model").write_bytes(b"no model")
    golden = built.files[installed.golden.artifact.sha256]
    found = measure(installed, tmp_path / "model", golden, FIELD)
    assert (found.proof.passed, found.proof.reason) == (False, "load_failed")


def test_a_model_without_field_data_is_a_failed_load() -> None:
    built, installed = release(2)
    model = built.files[installed.variant.artifact.sha256]
    found = measure(installed, model, built.files[installed.golden.artifact.sha256], None)
    assert (found.proof.passed, found.proof.reason) == (False, "load_failed")
    assert "digits" in found.proof.detail


def test_live_requests_draw_from_what_was_measured() -> None:
    found = measured(2)
    _, installed = release(2)
    serving = VirtualServing(50.0, Draws(1, "use"))
    serving.apply(100.0, 1, [Served(installed, found)])
    status = serving.status(180.0)
    assert status is not None
    stats = status.models[0].stats
    assert stats.requests in (3999, 4000, 4001)
    mean = stats.confidence_sum / stats.confidence_count
    assert abs(mean - fmean(found.confidences)) < 0.01
    serving.stop()
    assert serving.status(181.0) is None


def test_each_release_and_profile_is_measured_once(tmp_path: Path) -> None:
    built, installed = release(2)
    model = built.files[installed.variant.artifact.sha256].read_bytes()
    golden = built.files[installed.golden.artifact.sha256].read_bytes()
    told: list[ModelBehaviour] = []
    posted = threading.Semaphore(0)
    actions = []

    def post(action) -> None:
        actions.append(action)
        posted.release()

    threads = Workers(1, "measure", post)
    laboratory = MeasuringLaboratory({"digits": FIELD}, tmp_path, threads)
    for _ in range(3):
        laboratory.study(installed, model, golden, told.append)
    assert posted.acquire(timeout=60)
    assert told == []  # callbacks run only in the event loop's thread
    actions[0]()
    laboratory.study(installed, model, golden, told.append)
    threads.close()
    assert len(told) == 4
    assert len({id(behaviour) for behaviour in told}) == 1
    assert len(actions) == 1


def test_what_goes_wrong_in_a_thread_is_raised_in_the_world(tmp_path: Path) -> None:
    actions = []
    threads = Workers(1, "measure", actions.append)
    laboratory = MeasuringLaboratory({"digits": FIELD}, tmp_path / "lab", threads)
    (tmp_path / "lab").rmdir()
    _, installed = release(2)
    laboratory.study(installed, b"", b"", lambda _: None)
    threads.close()
    with pytest.raises(FileNotFoundError):
        actions[0]()


@pytest.mark.parametrize(
    "arrays",
    [{"label": np.zeros(3)}, {"input.x": np.zeros((2, 4)), "label": np.zeros(3)}, {"input.x": []}],
)
def test_field_data_of_another_kind_is_refused(tmp_path: Path, arrays) -> None:
    np.savez(tmp_path / "field.npz", **arrays)
    with pytest.raises(OperatorError, match="setting_invalid"):
        read_field(tmp_path / "field.npz")
