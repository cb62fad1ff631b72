"""A convolutional network on scikit-learn's handwritten digits, with data and real accuracy.

The convolutions are random and fixed, the last layer is fitted in closed form: training takes
milliseconds, and about 97 % of the test images are right.
"""

import itertools
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

CHANNELS = (1, 16, 32)
PIXELS = 8


class Digits(NamedTuple):
    """Images of shape [cases, 1, 8, 8] from 0 to 1, and their classes."""

    train_x: NDArray[np.float32]
    train_y: NDArray[np.int64]
    test_x: NDArray[np.float32]
    test_y: NDArray[np.int64]


@cache
def digits() -> Digits:
    from sklearn.datasets import load_digits  # noqa: PLC0415 - 0.5 s

    data = load_digits()
    order = np.random.default_rng(5).permutation(len(data.target))
    x = (data.images[order, None] / 16).astype(np.float32)
    y = data.target[order].astype(np.int64)
    return Digits(x[:1100], y[:1100], x[1100:], y[1100:])


def write_cnn(path: Path, *, batch: int | None = None, noted_shapes: bool = False) -> Path:
    """``image`` FP32 [-1, 1, 8, 8] -> ``scores`` FP32 [-1, 10].

    With ``noted_shapes`` the file has the shape of an inner tensor as exporters note it, and it is
    wrong.
    """
    size: Any = batch if batch is not None else "batch"
    nodes, constants = _layers()
    head = _head()
    constants += [
        numpy_helper.from_array(head[:-1], "head"),
        numpy_helper.from_array(head[-1], "bias"),
    ]
    nodes += [
        helper.make_node("Flatten", ["relu1"], ["flat"], name="flatten"),
        helper.make_node("Gemm", ["flat", "head", "bias"], ["scores"], name="classify"),
    ]
    graph = helper.make_graph(
        nodes,
        "digits_cnn",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [size, 1, PIXELS, PIXELS])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [size, 10])],
        constants,
    )
    if noted_shapes:
        wrong = helper.make_tensor_value_info("flat", TensorProto.FLOAT, [size, 10])
        graph.value_info.append(wrong)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def write_data(path: Path, *, cases: int, train: bool = False) -> Path:
    """The first cases as ``.npz``, in the names that `model init --samples` takes."""
    data = digits()
    x, y = (data.train_x, data.train_y) if train else (data.test_x, data.test_y)
    np.savez(path, X=x[:cases], y=y[:cases])
    return path


@cache
def _filters() -> list[NDArray[np.float32]]:
    random = np.random.default_rng(2)
    return [
        (random.normal(0, 1, (out, given, 3, 3)) / np.sqrt(9 * given)).astype(np.float32)
        for given, out in itertools.pairwise(CHANNELS)
    ]


def _layers() -> tuple[list[Any], list[Any]]:
    nodes, constants, last = [], [], "image"
    for number, filters in enumerate(_filters()):
        constants.append(numpy_helper.from_array(filters, f"filters{number}"))
        nodes += [
            helper.make_node(
                "Conv", [last, f"filters{number}"], [f"conv{number}"], name=f"conv_{number}",
                pads=[1, 1, 1, 1], strides=[number + 1, number + 1],
            ),
            helper.make_node("Relu", [f"conv{number}"], [f"relu{number}"], name=f"relu_{number}"),
        ]  # fmt: skip
        last = f"relu{number}"
    return nodes, constants


@cache
def _head() -> NDArray[np.float32]:
    """The last layer, by ridge regression on the features of the training images."""
    nodes, constants = _layers()
    nodes.append(helper.make_node("Flatten", ["relu1"], ["flat"]))
    graph = helper.make_graph(
        nodes,
        "features",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, PIXELS, PIXELS])],
        [helper.make_tensor_value_info("flat", TensorProto.FLOAT, ["n", None])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    data = digits()
    (found,) = session.run(None, {"image": data.train_x})
    features = np.hstack([found, np.ones((len(found), 1))]).astype(np.float64)
    wanted = 2.0 * np.eye(10)[data.train_y] - 1
    gram = features.T @ features + 0.1 * np.eye(features.shape[1])
    return np.linalg.solve(gram, features.T @ wanted).astype(np.float32)


def nodes_of(path: Path) -> list[Any]:
    """The nodes of a model file."""
    return list(onnx.load(path).graph.node)
