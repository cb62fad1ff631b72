"""Each task of a release has its metric through `edgefleet model optimize`."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from sklearn.metrics import f1_score

from edgefleet.base.errors import PublisherError
from edgefleet.optimize import optimize
from edgefleet.optimize.metrics.by_task import METRICS
from support.task_models import TaskModel, boxes, diabetes, masks, texts, vectors, wine


def answers(model: TaskModel, inputs: Any, output: str) -> Any:
    session = onnxruntime.InferenceSession(model.good)
    return session.run([output], {session.get_inputs()[0].name: inputs})[0]


def top1(model: TaskModel, inputs: Any, truth: Any) -> float:
    return float((answers(model, inputs, "probabilities").argmax(1) == truth).mean())


def macro_f1(model: TaskModel, inputs: Any, truth: Any) -> float:
    found = answers(model, inputs, "probabilities").argmax(1)
    return float(f1_score(truth, found, average="macro"))


def rmse(model: TaskModel, inputs: Any, truth: Any) -> float:
    errors = answers(model, inputs, "variable").reshape(-1) - truth
    return -float(np.sqrt((errors**2).mean()))


def whole(model: TaskModel, inputs: Any, truth: Any) -> float:
    """The models answer as the truth says."""
    return 1.0


def nothing(model: TaskModel, inputs: Any, truth: Any) -> float:
    """The vectors are those of the model, so the error is rounding."""
    return 0.0


CASES: dict[str, tuple[str, Callable[[], TaskModel], str, Callable[..., float]]] = {
    "top1": ("classification", wine, "", top1),
    "f1": ("classification", wine, "f1", macro_f1),
    "map": ("detection", boxes, "", whole),
    "iou": ("segmentation", masks, "", whole),
    "rmse": ("regression", diabetes, "", rmse),
    "cosine": ("embedding", vectors, "", whole),
    "wer": ("text", texts, "", whole),
    "none": ("none", vectors, "", nothing),
}


def data(model: TaskModel, folder: Path) -> tuple[Any, Any]:
    """Inputs and truth, in ``samples.npz`` and as ``good.onnx``."""
    inputs = model.samples.get("X", model.samples.get("input.x"))
    truth = model.samples.get("y", model.samples.get("output.vector"))
    model.write(folder)
    np.savez(folder / "samples.npz", X=inputs, y=truth)
    return inputs, truth


def test_each_task_is_tried() -> None:
    assert {task for task, *_ in CASES.values()} == set(METRICS)


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_the_command_measures_the_metric_of_the_task(name: str, tmp_path: Path) -> None:
    task, make, metric, wanted = CASES[name]
    inputs, truth = data(model := make(), tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "edgefleet.cli.main", "model", "optimize", tmp_path / "good.onnx",
         "--profile", "generic_x86", "--calibration", tmp_path / "samples.npz",
         "--evaluate", tmp_path / "samples.npz", "--model", "m", "--release", "1", "--task", task,
         "--out", tmp_path / "out", "--cache-dir", tmp_path / "cache", "--budget", "1s", "--json",
         *(["--metric", metric] if metric else []),
         *(["--output", "probabilities"] if task == "classification" else [])],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr
    baseline = json.loads(done.stdout.splitlines()[-1])["profiles"][0]["baseline"]
    assert baseline["value"] == pytest.approx(wanted(model, inputs, truth), abs=1e-4)


def refuses(outputs: Any, truth: Any) -> float:
    raise ZeroDivisionError("no such class")


@pytest.mark.long
def test_a_metric_that_raises_ends_the_search_with_its_name(tmp_path: Path) -> None:
    data(wine(), tmp_path)
    with pytest.raises(PublisherError, match="ZeroDivisionError: no such class") as caught:
        optimize(
            tmp_path / "good.onnx", profiles=["generic_x86"], model="m", release="1",
            calibration=tmp_path / "samples.npz", evaluate=tmp_path / "samples.npz",
            out=tmp_path / "out", cache_dir=tmp_path / "cache", metric=refuses, budget_s=1,
        )  # fmt: skip
    assert caught.value.code == "metric_failed"
    assert "refuses" in str(caught.value)
    assert not (tmp_path / "out").exists()
