"""PyTorch models as sources: references, refusals, and the whole command where PyTorch is there."""

import json
from pathlib import Path

import numpy as np
import pytest

from edgefleet.base.errors import PublisherError
from edgefleet.optimize.conversion.convert import convert
from edgefleet.optimize.evaluation_data import CalibrationData
from edgefleet.optimize.source_model import SourceModel
from edgefleet.optimize.torch_source import TorchWishes, is_torch, with_torch
from edgefleet.optimize.torch_steps.reference import is_reference, reference_of, source_of
from edgefleet.serving.model_file import inspect_model
from support.command_line import CommandLine
from support.equal_latencies import make_equal

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-torch" / "bin" / "python"
PATTERNS = ROOT / "tests" / "support" / "torch_models" / "patterns.py"


def test_a_reference_names_a_file_or_a_module(tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text("def made(): ...\n")
    assert reference_of(f"{file}:made") == (tmp_path, "net", "made")
    assert reference_of("mycode.net:made") == (None, "mycode.net", "made")
    assert source_of(f"{file}:made") == file.read_bytes()
    assert source_of("edgefleet.optimize.recipe:Recipe").startswith(b'"""Recipes')
    assert source_of("no.such.module:made") == b""
    assert is_reference(f"{file}:made")
    others = (str(file), "models:/net@champion", "runs:/1/net", "http://host:5000", "net.py:")
    assert not any(map(is_reference, others))
    assert [is_torch(one) for one in ("net.py:made", "net.pt2", Path("net.onnx"))] == [
        True, True, False,
    ]  # fmt: skip


def test_a_training_function_without_a_pytorch_model_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "train.npz"
    wishes = TorchWishes(train="net.py:train")
    with pytest.raises(PublisherError, match="needs the PyTorch model") as caught:
        with_torch([Path("net.onnx")], data, wishes, tmp_path)
    assert (caught.value.code, caught.value.field) == ("model_unsupported", "train")
    with pytest.raises(PublisherError, match="Two models"):
        with_torch(["a.py:one", "b.py:two"], data, TorchWishes(), tmp_path)
    assert with_torch(["net.onnx"], data, TorchWishes(), tmp_path) == ([Path("net.onnx")], None)


def test_an_export_needs_two_cases(tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", image=np.zeros((1, 3), np.float32), y=np.zeros(1))
    with pytest.raises(PublisherError, match="two cases at least") as caught:
        with_torch(["net.py:made"], tmp_path / "one.npz", TorchWishes(), tmp_path)
    assert (caught.value.code, caught.value.field) == ("calibration_invalid", "image")


@pytest.mark.long
@pytest.mark.skipif(not PYTHON.exists(), reason="PyTorch is missing: make torch")
def test_pruning_and_distillation_are_candidates_with_a_training_function_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_equal(monkeypatch)
    monkeypatch.setenv("PATTERNS_WEIGHTS", str(tmp_path / "trained.pt"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    patterns = np.random.default_rng(0).normal(size=(4, 1, 8, 8)).astype(np.float32)
    for name, count in (("train", 100), ("test", 600)):
        drawn = np.random.default_rng(count)
        classes = drawn.integers(0, 4, count)
        noise = drawn.normal(scale=1.5, size=(count, 1, 8, 8))
        images = (patterns[classes] + noise).astype(np.float32)
        np.savez(tmp_path / f"{name}.npz", image=images, y=classes)

    def run(out: str, *more: str) -> tuple[dict[str, str | None], str]:
        said = CommandLine(tmp_path, {})(
            "model", "optimize", f"{PATTERNS}:trained", "--python", str(PYTHON), "--profile",
            "jetson_nano", "--calibration", str(tmp_path / "train.npz"), "--evaluate",
            str(tmp_path / "test.npz"), "--model", "patterns", "--release", "1", "--out",
            str(tmp_path / out), "--cache-dir", str(tmp_path / "cache"), "--keep", "0.97",
            "--budget", "1h", "--json", *more,
        )  # fmt: skip
        assert said.exit == 0, said.err
        (profile,) = said.json["profiles"]
        steps = {
            "+".join(step["step"] for step in one["recipe"]["steps"]): one["judgement"]["refused"]
            for one in profile["tried"]
        }
        return steps, "+".join(
            one["step"] for one in profile["chosen"]["candidate"]["recipe"]["steps"]
        )

    refused = {"simplify": "not_better", "fp16": None}
    assert run("1") == ({**refused, "prune": "not_trained", "distil": "not_trained"}, "fp16")
    trained, chosen = run("2", "--train", f"{PATTERNS}:train")
    assert trained == {**refused, "prune": None, "distil": None}
    assert chosen == "distil"
    lineage = json.loads((tmp_path / "2" / "lineage.json").read_text())
    parts = {
        one["name"]: one for one in lineage["predicate"]["buildDefinition"]["resolvedDependencies"]
    }
    assert parts["source model"]["annotations"]["torch_model"] == "patterns.py:trained"
    assert len(parts["parent 1"]["digest"]["sha256"]) == 64


@pytest.mark.long
@pytest.mark.skipif(not PYTHON.exists(), reason="PyTorch is missing: make torch")
def test_a_pytorch_model_becomes_a_tflite_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATTERNS_WEIGHTS", str(tmp_path / "trained.pt"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    images = np.random.default_rng(1).normal(size=(8, 1, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "train.npz", image=images)
    wishes = TorchWishes(python=PYTHON)
    (source,), _ = with_torch([f"{PATTERNS}:trained"], tmp_path / "train.npz", wishes, tmp_path)
    assert isinstance(source, SourceModel)
    # It compares the answers of both files.
    convert(source.path, tmp_path / "model.tflite", CalibrationData({"image": images}))
    facts = inspect_model(tmp_path / "model.tflite")
    assert (facts.inputs, facts.outputs) == (source.facts.inputs, source.facts.outputs)
