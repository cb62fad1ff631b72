"""Refusals of the training steps before PyTorch is asked."""

import pickle
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from edgefleet.base.errors import DeviceError, PublisherError
from edgefleet.optimize.recipe import Distil, Half, Prune
from edgefleet.optimize.torch_steps.torch_file import TorchFile, torch_file
from edgefleet.optimize.torch_steps.trainer import (
    TorchModel,
    TorchTrainer,
    export_model,
    students,
)

EXAMPLE = {"x": np.zeros((2, 3), np.float32)}


def _archive(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"")
    return path


def test_a_pickle_is_refused(tmp_path: Path) -> None:
    old = tmp_path / "model.pth"
    old.write_bytes(pickle.dumps({"weight": [1.0]}, protocol=2))
    new = _archive(tmp_path / "model.pt", "model/data.pkl", "model/data/0", "model/version")
    for path in (old, new):
        with pytest.raises(PublisherError, match=r"pickle, as torch\.save") as refused:
            export_model(TorchModel(str(path), EXAMPLE), tmp_path / "made.onnx")
        assert refused.value.code == "model_is_pickle"
        assert "package.module:function" in refused.value.hint


def test_the_formats_without_pickled_objects_are_told_apart(tmp_path: Path) -> None:
    script = _archive(
        tmp_path / "a.pt", "a/data.pkl", "a/constants.pkl", "a/code/__torch__.py", "a/version"
    )
    program = _archive(tmp_path / "b.pt2", "b/archive_format", "b/models/model.json")
    older = _archive(tmp_path / "c.pt2", "serialized_exported_program.json", "version")
    assert torch_file(script) is TorchFile.TORCHSCRIPT
    assert torch_file(program) is torch_file(older) is TorchFile.EXPORTED_PROGRAM


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 and no more"])
def test_another_file_is_no_model(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    with pytest.raises(PublisherError) as refused:
        torch_file(path)
    assert refused.value.code == "not_a_model"
    with pytest.raises(PublisherError, match="not one of PyTorch"):
        torch_file(_archive(tmp_path / "other.zip", "readme.txt"))


def test_training_needs_a_function_unless_no_epoch_is_asked_for(tmp_path: Path) -> None:
    trainer = TorchTrainer(TorchModel("m:make", EXAMPLE))
    with pytest.raises(PublisherError, match="trained for 3 epochs, and there is no") as refused:
        trainer.train(Prune(), tmp_path / "m.onnx", tmp_path / "made.onnx")
    assert refused.value.code == "training_missing"
    with pytest.raises(PublisherError, match="trains nothing"):
        trainer.train(Half(), tmp_path / "m.onnx", tmp_path / "made.onnx")
    file = TorchTrainer(TorchModel("model.pt2", EXAMPLE), "m:train")
    with pytest.raises(PublisherError, match="cannot be trained"):
        file.train(Distil(student="m:s"), tmp_path / "m.onnx", tmp_path / "made.onnx")


def test_a_python_without_pytorch_is_named(tmp_path: Path) -> None:
    source = TorchModel("m:make", EXAMPLE, python=Path(sys.executable))
    with pytest.raises(DeviceError, match="No module named 'torch'") as missing:
        export_model(source, tmp_path / "made.onnx")
    assert missing.value.code == "runtime_missing"
    assert "python=" in missing.value.hint
    nowhere = TorchModel("m:make", EXAMPLE, python=tmp_path / "python")
    with pytest.raises(DeviceError, match="cannot be started"):
        export_model(nowhere, tmp_path / "made.onnx")
    assert not (tmp_path / "made.onnx").exists()
    assert list(tmp_path.iterdir()) == []


def test_the_key_of_the_cache_changes_with_the_code_and_the_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "__init__.py").touch()
    (tmp_path / "code" / "net.py").write_text("raise SystemExit  # is not imported")
    source = TorchModel("code.net:make", EXAMPLE)
    first = TorchTrainer(source, "code.net:train").version
    assert TorchTrainer(source, "code.net:train").version == first
    assert TorchTrainer(source, "code.net:train", seed=1).version != first
    assert TorchTrainer(source, "code.net:other").version != first
    (tmp_path / "code" / "net.py").write_text("x = 1")
    assert TorchTrainer(source, "code.net:train").version != first


def test_a_search_tries_ever_narrower_students() -> None:
    widths = [float(step.student.removeprefix("width:")) for step in students(epochs=2)]
    assert widths == sorted(widths, reverse=True)
    assert len(widths) == 4
