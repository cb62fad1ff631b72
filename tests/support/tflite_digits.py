"""A float TFLite classifier of handwritten digits, written and trained here in half a second.

The data are those of scikit-learn (1,797 images of 8x8). The filters of the convolution are the
principal components of the images' patches, the first dense layer is random, and the last one is
fitted to the labels (ridge regression).
"""

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

Floats = NDArray[np.float32]
SIDE, FILTERS, HIDDEN, CLASSES, TRAINED = 8, 12, 96, 10, 1_200
SHARPNESS, RIDGE = 12.0, 2.0
SIGNATURE = "serving_default"


@dataclass(frozen=True)
class Digits:
    train: Floats
    test: Floats
    test_label: NDArray[np.int64]
    weights: tuple[Floats, ...]


@cache
def digits() -> Digits:
    """Images with values of 0 to 1, channels last, and the weights of the trained classifier."""
    found = find_spec("sklearn")  # not imported: that takes a second
    assert found is not None
    assert found.origin is not None
    rows = np.loadtxt(Path(found.origin).parent / "datasets/data/digits.csv.gz", delimiter=",")
    rows = rows[np.random.default_rng(3).permutation(len(rows))]
    images = (rows[:, :-1] / 16).astype(np.float32).reshape(-1, SIDE, SIDE, 1)
    label = rows[:, -1].astype(np.int64)
    padded = np.pad(images[:TRAINED, ..., 0], ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    patches = windows.reshape(-1, 9)
    _, _, components = np.linalg.svd(patches[::7] - patches.mean(axis=0), full_matrices=False)
    kernels = np.concatenate([components[:6], -components[:6]]).astype(np.float32)
    bias = np.full(FILTERS, -0.1, np.float32)
    features = _features(images, kernels, bias)
    drawn = np.random.default_rng(5)
    hidden = drawn.normal(0, 0.15, (HIDDEN, features.shape[1])).astype(np.float32)
    hidden_bias = np.zeros(HIDDEN, np.float32)
    inner = np.maximum(features[:TRAINED] @ hidden.T, 0)
    wanted = SHARPNESS * (np.eye(CLASSES, dtype=np.float32)[label[:TRAINED]] - 0.5)
    whole = np.hstack([inner, np.ones((TRAINED, 1), np.float32)])
    ridge = whole.T @ whole + RIDGE * np.eye(HIDDEN + 1, dtype=np.float32)
    last = np.linalg.solve(ridge, whole.T @ wanted).astype(np.float32)
    dense = (hidden, hidden_bias, np.ascontiguousarray(last[:-1].T), last[-1])
    weights = (kernels.reshape(FILTERS, 3, 3, 1), bias, *dense)
    return Digits(images[:TRAINED], images[TRAINED:], label[TRAINED:], weights)


def write_digits(path: Path, batch: int = -1, *, signature: bool = True) -> Path:
    """The classifier as a TFLite file with the input ``image`` and the output ``probabilities``."""
    kernels, bias, hidden, hidden_bias, last, last_bias = digits().weights
    made = Graph(batch, ("image", (SIDE, SIDE, 1)))
    made.convolution("conv", kernels, bias)
    made.pool("pool", SIDE // 2, FILTERS)
    made.flatten("flat", (SIDE // 2) ** 2 * FILTERS)
    made.dense("hidden", hidden, hidden_bias, relu=True)
    made.dense("scores", last, last_bias)
    made.softmax("probabilities", CLASSES)
    path.write_bytes(made.finished("image" if signature else ""))
    return path


def answers(path: Path, images: NDArray[Any]) -> Floats:
    """What the interpreter answers, as floats. Integers are converted with the file's scales."""
    interpreter = Interpreter(model_path=str(path), num_threads=1)
    (given,), (made,) = interpreter.get_input_details(), interpreter.get_output_details()
    scale, zero = given["quantization"]
    if scale:
        bounds = np.iinfo(given["dtype"])
        images = np.clip(np.rint(images / scale) + zero, bounds.min, bounds.max)
    images = images.astype(given["dtype"])
    size = int(given["shape_signature"][0])
    if size == -1:
        size = len(images)
        interpreter.resize_tensor_input(given["index"], images.shape)
    interpreter.allocate_tensors()
    found = []
    for start in range(0, len(images) - size + 1, size):
        interpreter.set_tensor(given["index"], images[start : start + size])
        interpreter.invoke()
        found.append(interpreter.get_tensor(made["index"]))
    scale, zero = made["quantization"]
    whole = np.concatenate(found).astype(np.float32)
    return (whole - zero) * np.float32(scale) if scale else whole


def accuracy(path: Path) -> float:
    """The share of right answers on the test images."""
    data = digits()
    return float((answers(path, data.test).argmax(axis=1) == data.test_label).mean())


class Graph:
    """A chain of layers, each an operator with one output that has the layer's name."""

    def __init__(self, batch: int, given: tuple[str, tuple[int, ...]]) -> None:
        self._batch = batch
        self._model = schema.ModelT()
        self._model.version, self._model.description = 3, b"digits"
        self._model.buffers, self._model.operatorCodes = [schema.BufferT()], []
        self._graph = schema.SubGraphT()
        self._graph.name, self._graph.tensors, self._graph.operators = b"main", [], []
        self._last = self._tensor(*given)
        self._graph.inputs = [self._last]

    def convolution(self, name: str, kernels: Floats, bias: Floats, side: int = SIDE) -> None:
        options = schema.Conv2DOptionsT()
        options.padding, options.strideW, options.strideH = 0, 1, 1
        options.fusedActivationFunction = schema.ActivationFunctionType.RELU
        taken = [self._constant(f"{name}/w", kernels), self._constant(f"{name}/b", bias)]
        self._add("CONV_2D", name, (side, side, len(kernels)), taken, "Conv2DOptions", options)

    def pool(self, name: str, side: int, channels: int) -> None:
        options = schema.Pool2DOptionsT()
        options.padding = schema.Padding.VALID
        options.strideW = options.strideH = options.filterWidth = options.filterHeight = 2
        self._add("MAX_POOL_2D", name, (side, side, channels), [], "Pool2DOptions", options)

    def flatten(self, name: str, size: int) -> None:
        options = schema.ReshapeOptionsT()
        options.newShape = [-1, size]
        shape = self._constant(f"{name}/shape", np.array([-1, size], np.int32))
        self._add("RESHAPE", name, (size,), [shape], "ReshapeOptions", options)

    def dense(self, name: str, weights: Floats, bias: Floats, *, relu: bool = False) -> None:
        options = schema.FullyConnectedOptionsT()
        if relu:
            options.fusedActivationFunction = schema.ActivationFunctionType.RELU
        taken = [self._constant(f"{name}/w", weights), self._constant(f"{name}/b", bias)]
        size = (len(weights),)
        self._add("FULLY_CONNECTED", name, size, taken, "FullyConnectedOptions", options)

    def softmax(self, name: str, size: int) -> None:
        options = schema.SoftmaxOptionsT()
        options.beta = 1.0
        self._add("SOFTMAX", name, (size,), [], "SoftmaxOptions", options)

    def unary(self, operator: str, name: str, size: tuple[int, ...]) -> None:
        """An operator with one input and without options, such as ``EXP``."""
        self._add(operator, name, size, [], "NONE", None)

    def finished(self, signature_input: str = "") -> bytes:
        """The bytes of the file. With the name of the input, it has a signature."""
        self._graph.outputs = [self._last]
        self._model.subgraphs = [self._graph]
        if signature_input:
            one = schema.SignatureDefT()
            one.signatureKey, one.subgraphIndex = SIGNATURE.encode(), 0
            one.inputs, one.outputs = [schema.TensorMapT()], [schema.TensorMapT()]
            one.inputs[0].name, one.inputs[0].tensorIndex = b"given", self._graph.inputs[0]
            one.outputs[0].name, one.outputs[0].tensorIndex = b"made", self._last
            self._model.signatureDefs = [one]
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(self._model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())

    def _add(
        self, code: str, name: str, size: tuple[int, ...], taken: list[int], kind: str, options: Any
    ) -> None:
        number = getattr(schema.BuiltinOperator, code)
        kinds = self._model.operatorCodes
        place = next((at for at, one in enumerate(kinds) if one.builtinCode == number), len(kinds))
        if place == len(kinds):
            one = schema.OperatorCodeT()
            one.builtinCode, one.deprecatedBuiltinCode, one.version = number, min(number, 127), 1
            kinds.append(one)
        operator = schema.OperatorT()
        operator.opcodeIndex, operator.inputs = place, [self._last, *taken]
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
        operator.builtinOptions = options
        self._last = self._tensor(name, size)
        operator.outputs = [self._last]
        self._graph.operators.append(operator)

    def _tensor(self, name: str, size: tuple[int, ...]) -> int:
        made = schema.TensorT()
        made.name, made.shape, made.buffer = name.encode(), [abs(self._batch), *size], 0
        if self._batch == -1:
            made.shapeSignature = [-1, *size]
        self._graph.tensors.append(made)
        return len(self._graph.tensors) - 1

    def _constant(self, name: str, array: NDArray[Any]) -> int:
        buffer, made = schema.BufferT(), schema.TensorT()
        buffer.data = np.frombuffer(array.tobytes(), np.uint8)
        self._model.buffers.append(buffer)
        made.name, made.shape = name.encode(), list(array.shape)
        made.buffer = len(self._model.buffers) - 1
        made.type = schema.TensorType.INT32 if array.dtype == np.int32 else 0
        self._graph.tensors.append(made)
        return len(self._graph.tensors) - 1


def _features(images: Floats, kernels: Floats, bias: Floats) -> Floats:
    padded = np.pad(images[..., 0], ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    made = np.maximum(windows.reshape(*windows.shape[:3], 9) @ kernels.T + bias, 0)
    pooled = made.reshape(len(images), SIDE // 2, 2, SIDE // 2, 2, -1).max(axis=(2, 4))
    return pooled.reshape(len(images), -1)
