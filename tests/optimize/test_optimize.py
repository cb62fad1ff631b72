"""Optimising real models, in real processes: `model optimize` and the Python API."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import edgefleet.optimize.building
import edgefleet.optimize.measuring
from edgefleet.base.errors import PublisherError
from edgefleet.optimize import optimize
from edgefleet.optimize.building import Builder
from edgefleet.optimize.cache import Cache
from edgefleet.optimize.child import ChildLimits, run_child
from edgefleet.optimize.data_files import DataReader
from edgefleet.optimize.evaluation_data import CalibrationData
from edgefleet.optimize.outcome import Outcome
from edgefleet.optimize.recipe import Half, Prune, Recipe, StaticInt8, WeightInt8
from edgefleet.optimize.release_folder import build_release
from edgefleet.optimize.run_model import prove
from edgefleet.optimize.source import by_runtime, read_source
from edgefleet.optimize.step_process import StepAnswer, StepRequest
from edgefleet.serving.model_file import inspect_model
from support.digits_cnn import digits, write_cnn, write_data
from support.equal_latencies import make_equal

STATIC = Recipe(runtime="onnx", steps=(StaticInt8(),))
HALF = Recipe(runtime="onnx", steps=(Half(),))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, calibration data and evaluation data with a ragged last batch."""
    folder = tmp_path_factory.mktemp("world")
    write_cnn(folder / "cnn.onnx")
    write_data(folder / "train.npz", cases=60, train=True)
    write_data(folder / "test.npz", cases=397)
    return folder


def run(world: Path, out: Path, **other: Any) -> Outcome:
    wishes: dict[str, Any] = {
        "profiles": ["generic_x86"], "calibration": world / "train.npz",
        "evaluate": world / "test.npz", "model": "digits", "release": "2", "out": out,
        "cache_dir": world / "cache", "recipes": (HALF, STATIC),
    }  # fmt: skip
    return optimize(world / "cnn.onnx", **(wishes | other))


def refusal(world: Path, **other: Any) -> PublisherError:
    with pytest.raises(PublisherError) as caught:
        run(world, world / "refused", **other)
    assert not (world / "refused").exists()
    return caught.value


@pytest.mark.long
def test_a_release_folder_is_made_and_made_again_from_the_cache(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    # FP16 is half the size and as fast: it qualifies on every machine that is not very busy.
    first = run(world, tmp_path / "first", keep=0.98, progress=lines.append)
    (outcome,) = first.profiles
    baseline = outcome.baseline
    assert (baseline.batch, len(baseline.cases)) == (8, 397)
    assert baseline.value == pytest.approx(np.mean(baseline.cases))
    half, static = (one.judgement.candidate for one in outcome.tried)
    assert half is not None
    assert static is not None
    assert baseline.size_bytes / half.size_bytes > 1.9
    assert baseline.size_bytes / static.size_bytes > 2.7  # corrected biases and names weigh here
    assert static.compressed_bytes < static.size_bytes
    assert 0 < half.peak_memory_bytes < 200 << 20
    assert abs(half.value - baseline.value) < 0.02
    assert any("onnx fp16: " in line for line in lines)

    def no_child(*_: object, **__: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(edgefleet.optimize.building, "run_child", no_child)
    monkeypatch.setattr(edgefleet.optimize.measuring, "run_child", no_child)
    again = run(world, tmp_path / "again", keep=0.98)
    assert again.profiles == first.profiles
    if first.folder is not None:
        built = build_release(tmp_path / "first", created_at=0.0)
        (variant,) = built.manifest.variants
        assert outcome.chosen is not None
        assert outcome.chosen.candidate is not None
        assert variant.artifact.sha256 == outcome.chosen.candidate.sha256
        assert prove(built, variant).passed
        assert variant.artifact.sha256 in (tmp_path / "first" / "lineage.json").read_text()
        assert "onnx fp16" in (tmp_path / "first" / "report.html").read_text()
        assert built.manifest.lineage is not None
        for path in (tmp_path / "first").iterdir():
            if path.name == "lineage.json":  # it has the times of the run
                continue
            assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


@pytest.mark.long
def test_the_command_answers_that_nothing_qualifies(world: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edgefleet.cli.main", "model", "optimize", world / "cnn.onnx",
         "--profile", "generic_x86", "--calibration", world / "train.npz",
         "--evaluate", world / "test.npz", "--model", "digits", "--release", "2",
         "--out", tmp_path / "out", "--cache-dir", world / "cache", "--size", "1000",
         "--budget", "1s", "--json", "--report", tmp_path / "report.html"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    outcome = json.loads(done.stdout.splitlines()[-1])
    assert outcome["folder"] is None
    assert "No variant qualifies for generic_x86, because" in done.stderr
    assert not (tmp_path / "out").exists()
    assert (
        "</strong>No variant qualifies for generic_x86, because"
        in (tmp_path / "report.html").read_text()
    )


def builder(world: Path, images: Any, cache: Path) -> Builder:
    sources = by_runtime([read_source(world / "cnn.onnx")])
    return Builder(Cache(cache), sources, CalibrationData({"image": images}), world)


def test_the_key_of_a_build_depends_on_what_changes_its_bytes(world: Path, tmp_path: Path) -> None:
    images = digits().train_x[:60]
    other = images.copy()
    other[59, 0, 7, 7] += 0.01
    one, two = builder(world, images, tmp_path), builder(world, other, tmp_path)
    assert one.key(STATIC) == builder(world, images.copy(), tmp_path).key(STATIC)
    assert one.key(STATIC) != two.key(STATIC)
    assert one.key(HALF) == two.key(HALF)  # FP16 uses no calibration data
    entropy = Recipe(runtime="onnx", steps=(StaticInt8(calibration="entropy"),))
    weights = Recipe(runtime="onnx", steps=(WeightInt8(),))
    assert len({one.key(recipe) for recipe in (STATIC, HALF, entropy, weights)}) == 4


def test_a_step_that_trains_needs_a_trainer(world: Path, tmp_path: Path) -> None:
    images = digits().train_x[:60]
    recipe = Recipe(runtime="onnx", steps=(Prune(),))
    with pytest.raises(PublisherError, match="there is no training function") as caught:
        builder(world, images, tmp_path).build(recipe, ChildLimits(1 << 30))
    assert (caught.value.code, caught.value.field) == ("training_missing", "trainer")


@pytest.mark.parametrize(
    ("limits", "told", "field"),
    [
        (ChildLimits(20 << 20), "needs more than 20 MiB of memory", "memory"),
        (ChildLimits(1 << 34, time_s=0.01), "took longer than 0 s", "time"),
    ],
    ids=["memory", "time"],
)
def test_a_child_has_limits(world: Path, limits: ChildLimits, told: str, field: str) -> None:
    request = StepRequest(
        runtime="onnx", step=Half(), model=str(world / "cnn.onnx"), calibration="-", made="-"
    )
    with pytest.raises(PublisherError, match=told) as caught:
        run_child("edgefleet.optimize.step_process", request, StepAnswer, limits, what="The step")
    assert (caught.value.code, caught.value.field) == ("step_failed", field)


def save(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


X, Y = digits().test_x[:9], digits().test_y[:9]


@pytest.mark.parametrize(
    ("arrays", "field", "told"),
    [
        ({"X": X[:0]}, "image", "no cases"),
        ({"X": X[:, :, :4]}, "image", "shape"),
        ({"a": X, "b": X}, "image", "There is no such array"),
        ({"X": np.full_like(X, np.inf)}, "image", "not a finite number"),
        ({"X": np.array(["text"] * 9)}, "image", "shape"),
    ],
    ids=["empty", "shape", "names", "infinite", "text"],
)
def test_calibration_files_are_checked(
    world: Path, tmp_path: Path, arrays: dict[str, Any], field: str, told: str
) -> None:
    facts = inspect_model(world / "cnn.onnx")
    with pytest.raises(PublisherError, match=told) as caught:
        DataReader(facts, tmp_path).calibration(save(tmp_path / "bad.npz", **arrays))
    assert (caught.value.code, caught.value.field) == ("calibration_invalid", field)


def test_evaluation_files_are_checked(world: Path, tmp_path: Path) -> None:
    reader = DataReader(inspect_model(world / "cnn.onnx"), tmp_path)
    with pytest.raises(PublisherError, match="no right answers") as caught:
        reader.evaluation(save(tmp_path / "bad.npz", X=X))
    assert (caught.value.code, caught.value.field) == ("evaluation_invalid", "y")
    with pytest.raises(PublisherError, match="there are 9 samples") as caught:
        reader.evaluation(save(tmp_path / "bad.npz", X=X, y=Y[:4]))
    assert (caught.value.code, caught.value.field) == ("evaluation_invalid", "y")
    (tmp_path / "no.npz").write_text("text")
    with pytest.raises(PublisherError, match="The evaluation data is not a valid"):
        reader.evaluation(tmp_path / "no.npz")
    assert len(reader.evaluation(save(tmp_path / "good.npz", X=X, y=Y)).inputs["image"]) == 9


def test_models_that_could_run_code_or_read_other_files_are_refused(
    world: Path, tmp_path: Path
) -> None:
    (tmp_path / "model.pkl").write_bytes(pickle.dumps({"weights": list(range(300))}))
    with pytest.raises(PublisherError) as caught:
        read_source(tmp_path / "model.pkl")
    assert caught.value.code == "model_is_pickle"
    outside = onnx.load(world / "cnn.onnx")
    onnx.save(
        outside, tmp_path / "outside.onnx", save_as_external_data=True, location="weights.bin",
        size_threshold=0,
    )  # fmt: skip
    with pytest.raises(PublisherError, match="weights in other files") as caught:
        read_source(tmp_path / "outside.onnx")
    assert caught.value.code == "model_unsupported"


def test_files_of_one_runtime_are_not_two_formats(world: Path, tmp_path: Path) -> None:
    source = read_source(world / "cnn.onnx")
    with pytest.raises(PublisherError, match=r"cnn\.onnx and cnn\.onnx are both for onnx"):
        by_runtime([source, source])


def test_a_folder_with_files_is_not_written_into(world: Path, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("mine")
    with pytest.raises(PublisherError, match="is not empty"):
        run(world, tmp_path)
    assert (tmp_path / "kept").read_text() == "mine"


def test_an_unknown_profile_is_refused(world: Path) -> None:
    error = refusal(world, profiles=["toaster"])
    assert (error.code, error.field) == ("release_file_invalid", "profile")


@pytest.mark.long
def test_a_killed_search_goes_on_where_it_was(world: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    script = (
        "import sys, os, signal, pathlib\n"
        "from edgefleet.optimize import optimize\n"
        "from edgefleet.optimize.recipe import *\n"
        "world = pathlib.Path(sys.argv[1])\n"
        "def progress(line):\n"
        "    if 'fp16' in line: os.kill(os.getpid(), signal.SIGKILL)\n"
        "optimize(world / 'cnn.onnx', profiles=['generic_x86'], calibration=world / 'train.npz',\n"
        "    evaluate=world / 'test.npz', model='digits', release='2', progress=progress,\n"
        "    out=pathlib.Path(sys.argv[2]), cache_dir=pathlib.Path(sys.argv[3]),\n"
        "    recipes=(Recipe(runtime='onnx', steps=(Half(),)),\n"
        "             Recipe(runtime='onnx', steps=(StaticInt8(),))))\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", script, world, tmp_path / "out", cache],
        env=dict(os.environ), check=False,
    )  # fmt: skip
    assert killed.returncode == -9
    before = {path.parent.name: path.stat().st_mtime_ns for path in cache.rglob("entry.json")}
    assert len(before) == 3  # FP16, and two runs
    outcome = run(world, tmp_path / "out", cache_dir=cache)
    assert len(outcome.profiles[0].tried) == 2
    after = {path.parent.name: path.stat().st_mtime_ns for path in cache.rglob("entry.json")}
    assert before.items() < after.items()


@pytest.fixture
def equally_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    make_equal(monkeypatch)


@pytest.mark.long
@pytest.mark.usefixtures("equally_fast")
def test_the_size_of_an_update_is_measured_against_the_baseline(
    world: Path, tmp_path: Path
) -> None:
    first = run(world, tmp_path / "first", recipes=(HALF,), keep=0.9, cache_dir=tmp_path / "cache")
    assert first.folder is not None
    more = {
        "recipes": (HALF, STATIC), "keep": 0.9, "baseline": tmp_path / "first",
        "cache_dir": tmp_path / "cache",
    }  # fmt: skip
    outcome = run(world, tmp_path / "second", **more)
    half, static = (one.judgement.candidate for one in outcome.profiles[0].tried)
    assert half is not None
    assert static is not None
    assert half.delta_bytes is not None
    assert half.delta_bytes < 200  # devices have this very file
    assert static.delta_bytes is not None
    assert static.delta_bytes > 3_000
