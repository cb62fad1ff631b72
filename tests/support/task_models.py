"""A small real model of each task with samples, and a broken twin that the samples refuse."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from sklearn.datasets import load_diabetes, load_wine
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

Arrays = Mapping[str, NDArray[Any]]

SIDE = 16  # of the detector's images, in pixels
CELL = 4
WORDS = ("idle", "run", "jam", "stop")


@dataclass(frozen=True)
class TaskModel:
    """The files of one model. ``options`` are those of ``model init``."""

    task: str
    good: bytes
    broken: bytes
    samples: Arrays
    options: tuple[str, ...] = ()

    def write(self, folder: Path) -> None:
        """``good.onnx``, ``broken.onnx`` and ``samples.npz``."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "good.onnx").write_bytes(self.good)
        (folder / "broken.onnx").write_bytes(self.broken)
        np.savez(folder / "samples.npz", **self.samples)


@cache
def wine() -> TaskModel:
    """A scikit-learn pipeline. The twin has the classes in another order."""
    inputs, classes = load_wine(return_X_y=True)
    inputs = inputs.astype(np.float32)
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(inputs[::2], classes[::2])
    good = exported(pipeline, inputs)
    pipeline[-1].coef_ = pipeline[-1].coef_[[1, 2, 0]]
    return TaskModel(
        "classification",
        good,
        exported(pipeline, inputs),
        {"X": inputs[1::2], "y": classes[1::2]},
    )


@cache
def diabetes() -> TaskModel:
    """A scikit-learn regressor. The twin has random weights times a million."""
    inputs, values = load_diabetes(return_X_y=True)
    inputs = inputs.astype(np.float32)
    pipeline = make_pipeline(StandardScaler(), Ridge()).fit(inputs[::2], values[::2])
    good = to_onnx(pipeline, inputs[:1]).SerializeToString()
    pipeline[-1].coef_ = np.random.default_rng(1).normal(size=inputs.shape[1]) * 1e6
    return TaskModel(
        "regression",
        good,
        to_onnx(pipeline, inputs[:1]).SerializeToString(),
        {"X": inputs[1::2], "y": values[1::2]},
    )


@cache
def boxes() -> TaskModel:
    """A detector of the brightest cell of an image. The twin has corners from 0 to 1."""
    random = np.random.default_rng(3)
    count, cells = 24, SIDE // CELL
    images = random.uniform(0, 0.1, (count, 1, SIDE, SIDE)).astype(np.float32)
    truth = np.zeros((count, 1, 6), np.float32)
    for case in range(count):
        row, column = random.integers(0, cells, 2).tolist()
        top, left = row * CELL, column * CELL
        images[case, 0, top : top + CELL, left : left + CELL] += 0.9
        truth[case, 0] = (left, top, left + CELL, top + CELL, 1, 0)
    corners = [(c * CELL, r * CELL) for r in range(cells) for c in range(cells)]
    good = np.array([(x, y, x + CELL, y + CELL) for x, y in corners], np.float32)
    samples = {"X": images, "y": truth}
    return TaskModel(
        "detection", _detector(good), _detector(good / SIDE), samples, ("--task", "detection")
    )


@cache
def masks() -> TaskModel:
    """A segmentation by brightness. The twin exchanges the two classes."""
    images = np.random.default_rng(4).uniform(0, 1, (12, 1, 8, 8)).astype(np.float32)
    truth = (images[:, 0] > 0.5).astype(np.int64)
    return TaskModel(
        "segmentation",
        _segmentation(1.0),
        _segmentation(-1.0),
        {"X": images, "y": truth},
        ("--task", "segmentation"),
    )


@cache
def vectors() -> TaskModel:
    """An embedding, whose samples have the vectors of the training framework."""
    random = np.random.default_rng(5)
    weights = random.normal(size=(8, 4)).astype(np.float32)
    inputs = random.normal(size=(20, 8)).astype(np.float32)
    made = inputs @ weights
    return TaskModel(
        "embedding",
        _embedding(weights),
        _embedding(random.normal(size=(8, 4)).astype(np.float32)),
        {"input.x": inputs, "output.vector": made / np.linalg.norm(made, axis=1, keepdims=True)},
        ("--task", "embedding"),
    )


@cache
def texts() -> TaskModel:
    """A model that answers with words. The twin has them in another order."""
    codes = np.arange(12, dtype=np.int64)[:, None] % len(WORDS)
    return TaskModel(
        "text",
        _texts(WORDS),
        _texts(WORDS[::-1]),
        {"X": codes, "y": np.array(WORDS)[codes]},
        ("--task", "text"),
    )


MODELS: Mapping[str, Callable[[], TaskModel]] = {
    "wine": wine,
    "diabetes": diabetes,
    "boxes": boxes,
    "masks": masks,
    "vectors": vectors,
    "texts": texts,
}


def exported(classifier: Any, inputs: NDArray[np.float32], *, zipmap: bool = False) -> bytes:
    """A scikit-learn classifier as ONNX."""
    made = to_onnx(classifier, inputs[:1], options={"zipmap": zipmap})
    return bytes(made.SerializeToString())


def graph_bytes(
    nodes: list[Any],
    inputs: list[Any],
    outputs: list[Any],
    constants: Mapping[str, NDArray[Any]],
    *,
    opset: int = 17,
    ir: int = 9,
) -> bytes:
    """A graph as the bytes of an ONNX file."""
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "small", inputs, outputs, tensors)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=ir).SerializeToString())


def tensor(name: str, kind: int, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, list(shape))


def _detector(corners: NDArray[np.float32]) -> bytes:
    nodes = [
        helper.make_node("AveragePool", ["image"], ["cells"], kernel_shape=[CELL, CELL],
                         strides=[CELL, CELL]),
        helper.make_node("Reshape", ["cells", "flat"], ["scores"]),
        helper.make_node("TopK", ["scores", "two"], ["best", "places"]),
        helper.make_node("Gather", ["corners", "places"], ["found"]),
        helper.make_node("Unsqueeze", ["best", "last"], ["score"]),
        helper.make_node("Mul", ["score", "zero"], ["class"]),
        helper.make_node("Concat", ["found", "score", "class"], ["boxes"], axis=2),
    ]  # fmt: skip
    constants = {
        "flat": np.array([0, -1]),
        "two": np.array([2]),
        "last": np.array([2]),
        "zero": np.zeros(1, np.float32),
        "corners": corners,
    }
    return graph_bytes(
        nodes,
        [tensor("image", TensorProto.FLOAT, "batch", 1, SIDE, SIDE)],
        [tensor("boxes", TensorProto.FLOAT, "batch", 2, 6)],
        constants,
    )


def _segmentation(sign: float) -> bytes:
    nodes = [helper.make_node("Conv", ["image", "weights", "shift"], ["scores"])]
    return graph_bytes(
        nodes,
        [tensor("image", TensorProto.FLOAT, "batch", 1, 8, 8)],
        [tensor("scores", TensorProto.FLOAT, "batch", 2, 8, 8)],
        {
            "weights": sign * np.array([-1, 1], np.float32).reshape(2, 1, 1, 1),
            "shift": sign * np.array([0.5, -0.5], np.float32),
        },
    )


def _embedding(weights: NDArray[np.float32]) -> bytes:
    nodes = [
        helper.make_node("MatMul", ["x", "weights"], ["long"]),
        helper.make_node("LpNormalization", ["long"], ["vector"], axis=1, p=2),
    ]
    return graph_bytes(
        nodes,
        [tensor("x", TensorProto.FLOAT, "batch", weights.shape[0])],
        [tensor("vector", TensorProto.FLOAT, "batch", weights.shape[1])],
        {"weights": weights},
    )


def _texts(words: tuple[str, ...]) -> bytes:
    node = helper.make_node(
        "LabelEncoder", ["code"], ["word"], domain="ai.onnx.ml",
        keys_int64s=list(range(len(words))), values_strings=list(words), default_string="?",
    )  # fmt: skip
    return graph_bytes(
        [node],
        [tensor("code", TensorProto.INT64, "batch", 1)],
        [tensor("word", TensorProto.STRING, "batch", 1)],
        {},
    )
