"""Models of XGBoost, LightGBM, Keras and TensorFlow, each converted in an environment of its own.

``make trees`` and ``make keras`` make the environments.
"""

import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter

from edgefleet.base.errors import DeviceError, PublisherError
from edgefleet.optimize.cache import Cache
from edgefleet.optimize.inputs.conversion import Converter
from edgefleet.optimize.inputs.read_models import ModelReader
from edgefleet.optimize.source import by_runtime
from edgefleet.optimize.source_model import SourceModel

ROOT = Path(__file__).parents[2]
TOOLS = Path(os.environ.get("EDGEFLEET_TOOLS") or Path.home() / ".cache/edgefleet/tools")
TREES = TOOLS / "trees" / "bin" / "python"
KERAS = TOOLS / "keras" / "bin" / "python"
LIGHTGBM = b"tree\nversion=v4\nnum_class=1\n"

needs_trees = pytest.mark.skipif(not TREES.exists(), reason="XGBoost is missing: make trees")
needs_keras = pytest.mark.skipif(not KERAS.exists(), reason="TensorFlow is missing: make keras")


@pytest.fixture(autouse=True)
def _edgefleet_for_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def _made(python: Path, program: str, folder: Path) -> Path:
    done = subprocess.run(
        [python, ROOT / "tests" / "support" / program, folder],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _made(TREES, "tree_models.py", tmp_path_factory.mktemp("trees"))


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _made(KERAS, "keras_models.py", tmp_path_factory.mktemp("keras"))


def read(python: Path, path: Path, work: Path, cache: Path) -> list[SourceModel]:
    work.mkdir()
    return ModelReader(work, Converter(Cache(cache), python)).read([path])


def answer(path: Path, inputs: Any) -> Any:
    session = onnxruntime.InferenceSession(path)
    return session.run(None, {session.get_inputs()[0].name: inputs})[-1]


@pytest.mark.long
@needs_trees
@pytest.mark.parametrize(
    "name", ["classes.ubj", "two.json", "value.ubj", "classes.txt", "two.txt", "value.txt"]
)
def test_boosted_trees_answer_as_onnx_as_they_did(trees: Path, tmp_path: Path, name: str) -> None:
    (source,) = read(TREES, trees / name, tmp_path / "w", tmp_path / "cache")
    assert source.facts.inputs[0].shape == (-1, 5)
    saved = np.load(trees / "answers.npz")
    wanted, got = saved[name].reshape(600, -1), answer(source.path, saved["X"])
    if name.startswith("two"):  # the probabilities of both classes
        assert got.shape == (600, 2)
        got = got[:, 1:]
    assert (np.abs(got - wanted).max(axis=1) < 1e-3).mean() > 0.99
    tool = "lightgbm" if name.endswith("txt") else "xgboost"
    assert source.lineage["format"] == tool
    assert tool in source.lineage["converted_by"]  # type: ignore[operator]


@pytest.mark.long
@needs_trees
@pytest.mark.parametrize("name", ["classes.ubj", "value.txt"])
def test_damaged_trees_are_refused(trees: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes((trees / name).read_bytes()[:200])
    with pytest.raises(PublisherError) as caught:
        read(TREES, tmp_path / name, tmp_path / "w", tmp_path / "cache")
    assert caught.value.code in {"not_a_model", "step_failed"}  # refused, or the child crashed


@pytest.mark.long
@needs_trees
def test_trees_that_the_converter_converts_wrongly_are_refused(trees: Path, tmp_path: Path) -> None:
    with pytest.raises(PublisherError, match="cannot be used") as caught:
        read(TREES, trees / "linear.txt", tmp_path / "w", tmp_path / "cache")
    assert (caught.value.code, caught.value.field) == ("model_unsupported", "model")


@pytest.mark.long
@needs_keras
@pytest.mark.parametrize("name", ["model.keras", "model.h5", "saved"])
def test_a_keras_model_gives_an_onnx_and_a_tflite_file(
    networks: Path, tmp_path: Path, name: str
) -> None:
    sources = read(KERAS, networks / name, tmp_path / "w", tmp_path / "cache")
    found = by_runtime(sources)  # the names and types of both are the same
    assert set(found) == {"onnx", "litert"}
    saved = np.load(networks / "answers.npz")
    assert np.abs(answer(found["onnx"].path, saved["X"]) - saved["y"]).max() < 1e-4
    runner = Interpreter(str(found["litert"].path)).get_signature_runner("serving_default")
    (got,) = runner(**{found["litert"].facts.inputs[0].name: saved["X"]}).values()
    assert np.abs(got - saved["y"]).max() < 1e-4
    assert sources[0].parents == sources[1].parents


@pytest.mark.long
@needs_keras
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("lambda.keras", "a layer Lambda, which is code"),
        ("lambda.h5", "a layer Lambda, which is code"),
        ("reader", "has the operator ReadFile"),
    ],
)
def test_a_network_with_code_is_refused(
    networks: Path, tmp_path: Path, name: str, told: str
) -> None:
    with pytest.raises(PublisherError, match=told) as caught:
        read(KERAS, networks / name, tmp_path / "w", tmp_path / "cache")
    assert (caught.value.code, caught.value.field) == ("model_unsupported", "model")


@pytest.mark.long
def test_a_python_without_the_packages_says_what_to_install(tmp_path: Path) -> None:
    path = tmp_path / "m.txt"
    path.write_bytes(LIGHTGBM)
    with pytest.raises(DeviceError, match="needs onnxmltools") as caught:
        read(Path(sys.executable), path, tmp_path / "w", tmp_path / "cache")
    assert (caught.value.code, caught.value.field) == ("runtime_missing", "converter-python")
    assert "pip install 'edgefleet[optimize]' onnxruntime onnxmltools lightgbm" in caught.value.hint


def test_a_python_that_is_none_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.txt"
    path.write_bytes(LIGHTGBM)
    with pytest.raises(DeviceError, match="cannot be started") as caught:
        read(tmp_path / "no-python", path, tmp_path / "w", tmp_path / "cache")
    assert caught.value.code == "runtime_missing"


def test_a_python_without_edgefleet_is_told_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH")
    venv.create(tmp_path / "bare", symlinks=True)
    python, path = tmp_path / "bare" / "bin" / "python", tmp_path / "m.txt"
    path.write_bytes(LIGHTGBM)
    with pytest.raises(DeviceError, match="does not have it") as caught:
        read(python, path, tmp_path / "w", tmp_path / "cache")
    assert (caught.value.code, caught.value.field) == ("runtime_missing", "python")
    assert f"{python} -m pip install 'edgefleet[optimize]'" in caught.value.hint


@pytest.mark.parametrize("kind", ["symlink", "hard link"])
def test_a_saved_model_with_files_from_elsewhere_is_refused(tmp_path: Path, kind: str) -> None:
    folder, outside = tmp_path / "saved", tmp_path / "outside"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"")
    outside.write_bytes(b"weights")
    inside = folder / "variables" / "variables.data-00000-of-00001"
    if kind == "symlink":
        inside.symlink_to(outside)
    else:
        os.link(outside, inside)
    with pytest.raises(PublisherError, match="is a link") as caught:
        read(Path(sys.executable), folder, tmp_path / "w", tmp_path / "cache")
    assert caught.value.code == "model_unsupported"
