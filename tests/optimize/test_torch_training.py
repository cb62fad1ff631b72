"""Export, pruning and distillation with PyTorch, in its own process and environment."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from edgefleet.base.errors import EdgefleetError, PublisherError
from edgefleet.optimize.recipe import Distil, Prune
from edgefleet.optimize.torch_steps.trainer import TorchModel, TorchTrainer, export_model

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-torch" / "bin" / "python"
MODELS = ROOT / "tests" / "support" / "torch_models"

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not PYTHON.exists(), reason="PyTorch is missing: make torch"),
]
PATTERNS = np.random.default_rng(0).normal(size=(4, 1, 8, 8)).astype(np.float32)


def _data(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """As in support/torch_models/patterns.py."""
    rng = np.random.default_rng(seed)
    wanted = rng.integers(0, 4, count)
    return PATTERNS[wanted] + rng.normal(scale=1.5, size=(count, 1, 8, 8)).astype(
        np.float32
    ), wanted


EXAMPLE = {"image": _data(3, 7)[0]}


@pytest.fixture(scope="module", autouse=True)
def _environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(MODELS))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("PATTERNS_WEIGHTS", str(tmp_path_factory.mktemp("weights") / "trained.pt"))
        yield


def _source(model: str = "patterns:trained", **more: object) -> TorchModel:
    return TorchModel(model, EXAMPLE, python=PYTHON, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def exported(_environment: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    export_model(_source(), path)
    return path


def _accuracy(path: Path) -> float:
    given, wanted = _data(400, 99)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return float((session.run(None, {"image": given})[0].argmax(1) == wanted).mean())


def _weights(path: Path) -> dict[str, np.ndarray]:
    return {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in onnx.load(path).graph.initializer
        if len(tensor.dims) > 1
    }


def test_an_export_takes_any_batch_and_equals_the_model(exported: Path, tmp_path: Path) -> None:
    model = onnx.load(exported)
    assert [one.name for one in model.graph.input] == ["image"]
    sizes = [one.type.tensor_type.shape.dim[0].dim_param for one in model.graph.input]
    assert sizes == ["batch"]
    assert _accuracy(exported) > 0.9
    export_model(_source(), tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == exported.read_bytes()
    assert str(ROOT).encode() not in exported.read_bytes()


def test_pruned_channels_are_gone_and_training_brings_the_accuracy_back(
    exported: Path, tmp_path: Path
) -> None:
    said = list[str]()
    trainer = TorchTrainer(_source(on_line=said.append), "patterns:train")
    done = trainer.train(Prune(share=0.5, epochs=3), exported, tmp_path / "pruned.onnx")
    assert done.parameters < 0.4 * done.parameters_before
    assert (tmp_path / "pruned.onnx").stat().st_size < 0.45 * exported.stat().st_size
    assert max(len(one) for one in _weights(tmp_path / "pruned.onnx").values()) <= 256
    assert _accuracy(tmp_path / "pruned.onnx") > 0.9
    assert "epoch 2" in said
    untrained = trainer.train(Prune(share=0.75, epochs=0), exported, tmp_path / "untrained.onnx")
    assert untrained.parameters < 0.2 * untrained.parameters_before
    assert "not trained" in untrained.notes[0]


@pytest.mark.parametrize("structure", ["2:4", "weights"])
def test_masked_weights_stay_zero_through_the_training(
    exported: Path, tmp_path: Path, structure: str
) -> None:
    made = tmp_path / "sparse.onnx"
    step = Prune(share=0.6, structure=structure, epochs=2)  # type: ignore[arg-type]
    done = TorchTrainer(_source(), "patterns:train").train(step, exported, made)
    assert done.parameters == done.parameters_before
    assert done.zeros / done.parameters == pytest.approx(
        0.5 if structure == "2:4" else 0.6, abs=0.05
    )
    assert abs(made.stat().st_size - exported.stat().st_size) < 2_000  # smaller only as a transfer
    assert _accuracy(made) > 0.9
    assert "The file keeps its size" in done.notes[0]
    if structure == "2:4":
        wide = next(one for one in _weights(made).values() if one.shape == (32, 32, 3, 3))
        groups = np.moveaxis(wide, 1, -1).reshape(-1, 4)
        assert (groups != 0).sum(axis=1).max() == 2


def test_a_student_learns_from_its_teacher(exported: Path, tmp_path: Path) -> None:
    trainer = TorchTrainer(_source(), "patterns:train")
    step = Distil(student="patterns:small", epochs=6, hard_share=0.0)
    done = trainer.train(step, exported, tmp_path / "student.onnx")
    assert done.parameters < 0.1 * done.parameters_before
    assert _accuracy(tmp_path / "student.onnx") > 0.8  # of the teacher alone: hard_share is 0
    narrow = trainer.train(
        Distil(student="width:0.5", epochs=2), exported, tmp_path / "narrow.onnx"
    )
    assert done.parameters < narrow.parameters < narrow.parameters_before
    assert _accuracy(tmp_path / "narrow.onnx") > 0.85


@pytest.mark.parametrize(
    ("model", "train", "words"),
    [
        ("patterns:trained", "patterns:train_nothing", "changed no weight"),
        ("patterns:trained", "patterns:train_without_loss", "never called its argument loss"),
        ("patterns:trained", "patterns:train_and_fail", "the data set is gone"),
        ("patterns:trained", "patterns:nowhere", "has no function 'nowhere'"),
        ("patterns:trained", "nowhere:train", "No module named 'nowhere'"),
        ("patterns:no_module", "patterns:train", "a torch.nn.Module is needed"),
    ],
)
def test_a_failing_function_is_named(
    exported: Path, tmp_path: Path, model: str, train: str, words: str
) -> None:
    trainer = TorchTrainer(_source(model), train)
    with pytest.raises(PublisherError, match=words) as refused:
        trainer.train(Prune(epochs=1), exported, tmp_path / "made.onnx")
    assert refused.value.code == "step_failed"
    assert not (tmp_path / "made.onnx").exists()


def test_a_training_over_its_time_is_ended(exported: Path, tmp_path: Path) -> None:
    trainer = TorchTrainer(_source(time_limit_s=15.0), "patterns:train_for_long")
    with pytest.raises(PublisherError, match="longer than 15 s"):
        trainer.train(Prune(epochs=1), exported, tmp_path / "made.onnx")


def test_an_export_of_other_weights_is_refused_as_a_source(exported: Path, tmp_path: Path) -> None:
    export_model(_source("patterns:small"), tmp_path / "other.onnx")
    trainer = TorchTrainer(_source(), "patterns:train")
    with pytest.raises(PublisherError, match="other weights"):
        trainer.train(Prune(epochs=1), tmp_path / "other.onnx", tmp_path / "made.onnx")


def test_a_torchscript_file_and_an_exported_program_are_exported(tmp_path: Path) -> None:
    command = [PYTHON, "-c", f"import patterns; patterns.save({str(tmp_path)!r})"]
    subprocess.run(command, check=True, timeout=500)
    for name in ("script.pt", "program.pt2"):
        export_model(_source(str(tmp_path / name)), tmp_path / f"{name}.onnx")
        assert _accuracy(tmp_path / f"{name}.onnx") > 0.9
    with pytest.raises(PublisherError, match="exactly 3"):
        export_model(_source(str(tmp_path / "fixed.pt2")), tmp_path / "fixed.onnx")


@pytest.mark.parametrize("name", ["fixed_batch", "across_cases"])
def test_a_model_that_cannot_take_any_batch_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(EdgefleetError) as refused:
        export_model(_source(f"patterns:{name}"), tmp_path / "made.onnx")
    assert refused.value.code == "model_unsupported"
