"""Two classifiers of scikit-learn's digits as ONNX: a perceptron, and a small CNN with batch norm."""

import warnings
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

Floats = NDArray[np.float32]
TRAIN = 1_078
_KERNELS = (8, 16)


@cache
def digits() -> tuple[Floats, NDArray[np.int64]]:
    """1,797 images of shape [1, 8, 8] from 0 to 1, in a fixed random order, and their digits."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    return (data.images[order, None] / 16).astype(np.float32), data.target[order].astype(np.int64)


def evaluation() -> tuple[Floats, NDArray[np.int64]]:
    images, labels = digits()
    return images[TRAIN:], labels[TRAIN:]


@cache
def perceptron(seed: int = 0) -> bytes:
    """64 inputs, 32 hidden units, 10 classes; about 96 % right."""
    images, labels = digits()
    model = MLPClassifier((32,), max_iter=40, learning_rate_init=0.01, random_state=seed, tol=0)
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
        model.fit(images[:TRAIN].reshape(TRAIN, -1), labels[:TRAIN])
    tensors = {
        "w1": model.coefs_[0], "b1": model.intercepts_[0],
        "w2": model.coefs_[1], "b2": model.intercepts_[1],
    }  # fmt: skip
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w1", "b1"], ["sum1"]),
        helper.make_node("Relu", ["sum1"], ["hidden"]),
        helper.make_node("Gemm", ["hidden", "w2", "b2"], ["scores"]),
    ]
    return _made(nodes, tensors)


@cache
def cnn(seed: int = 1) -> bytes:
    """Two convolutions, each with batch norm and ReLU, a maximum and a dense layer."""
    weights, means, variances = _train(seed)
    tensors: dict[str, Any] = {}
    nodes, at = [], "x"
    for layer in (1, 2):
        kernel, bias = weights[f"k{layer}"], weights[f"c{layer}"]
        mean, variance = means[layer - 1], variances[layer - 1]
        tensors |= {
            f"k{layer}": kernel, f"m{layer}": mean - bias, f"v{layer}": variance,
            f"s{layer}": np.sqrt(variance + 1e-5), f"o{layer}": mean,
        }  # fmt: skip
        norm = [f"conv{layer}", *(f"{name}{layer}" for name in "somv")]
        nodes += [
            helper.make_node("Conv", [at, f"k{layer}"], [f"conv{layer}"], pads=[1, 1, 1, 1]),
            helper.make_node("BatchNormalization", norm, [f"norm{layer}"], epsilon=1e-5),
            helper.make_node("Relu", [f"norm{layer}"], [f"relu{layer}"]),
        ]
        at = f"relu{layer}"
    tensors |= {"w": weights["w"], "b": weights["b"]}
    nodes += [
        helper.make_node("MaxPool", [at], ["pool"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["pool"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w", "b"], ["scores"]),
    ]
    return _made(nodes, tensors)


def _made(nodes: list[Any], tensors: dict[str, Any]) -> bytes:
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 10])],
        [
            numpy_helper.from_array(np.asarray(one, np.float32), name)
            for name, one in tensors.items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def _patches(images: Floats) -> Floats:
    """Windows of 3 x 3 with a margin of 1, as [cases, 8, 8, channels * 9]."""
    wide = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(wide, (3, 3), axis=(2, 3))
    return np.ascontiguousarray(windows.transpose(0, 2, 3, 1, 4, 5)).reshape(len(images), 8, 8, -1)


def _train(seed: int, epochs: int = 12) -> tuple[dict[str, Floats], list[Floats], list[Floats]]:
    """Adam on the cross-entropy. Returns weights, and mean and variance of each convolution."""
    rng = np.random.default_rng(seed)
    images, labels = (one[:TRAIN] for one in digits())
    first, second = _KERNELS
    weights = {
        "k1": rng.normal(0, 0.5, (first, 9)), "c1": np.zeros(first),
        "k2": rng.normal(0, 0.15, (second, first * 9)), "c2": np.zeros(second),
        "w": rng.normal(0, 0.06, (second * 16, 10)), "b": np.zeros(10),
    }  # fmt: skip
    moments = {name: [np.zeros_like(one), np.zeros_like(one)] for name, one in weights.items()}
    step = 0
    for _ in range(epochs):
        order = rng.permutation(TRAIN)
        for start in range(0, TRAIN, 49):
            rows = order[start : start + 49]
            step += 1
            for name, gradient in _gradients(weights, images[rows], labels[rows]).items():
                one, two = moments[name]
                one += 0.1 * (gradient - one)
                two += 0.01 * (gradient**2 - two)
                rate = 0.004 * np.sqrt(1 - 0.99**step) / (1 - 0.9**step)
                weights[name] -= rate * one / (np.sqrt(two) + 1e-8)
    _, sums = _forward(weights, images)
    flat = [one.reshape(-1, one.shape[-1]) for one in sums]
    shaped = {
        **weights,
        "k1": weights["k1"].reshape(first, 1, 3, 3),
        "k2": weights["k2"].reshape(second, first, 3, 3),
    }
    return shaped, [one.mean(axis=0) for one in flat], [one.var(axis=0) for one in flat]


def _forward(weights: dict[str, Any], images: Floats) -> tuple[dict[str, Any], list[Any]]:
    p1 = _patches(images)
    s1 = p1 @ weights["k1"].T + weights["c1"]
    p2 = _patches(np.maximum(s1, 0).transpose(0, 3, 1, 2))
    s2 = p2 @ weights["k2"].T + weights["c2"]
    blocks = np.maximum(s2, 0).reshape(len(images), 4, 2, 4, 2, -1)
    pool = blocks.max(axis=(2, 4))
    flat = pool.transpose(0, 3, 1, 2).reshape(len(images), -1)
    scores = flat @ weights["w"] + weights["b"]
    return {"p1": p1, "p2": p2, "blocks": blocks, "pool": pool, "flat": flat, "scores": scores}, [
        s1,
        s2,
    ]


def _gradients(weights: dict[str, Any], images: Floats, labels: Any) -> dict[str, Any]:
    seen, (s1, s2) = _forward(weights, images)
    size = len(images)
    shares = np.exp(seen["scores"] - seen["scores"].max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    shares[np.arange(size), labels] -= 1
    shares /= size
    back = (shares @ weights["w"].T).reshape(size, -1, 4, 4).transpose(0, 2, 3, 1)
    is_best = seen["blocks"] == seen["pool"][:, :, None, :, None]
    g2 = (back[:, :, None, :, None] * is_best).reshape(s2.shape) * (s2 > 0)
    k2 = weights["k2"].reshape(len(weights["k2"]), -1, 3, 3)
    wide = np.zeros((size, 10, 10, k2.shape[1]))
    for row in range(3):
        for column in range(3):
            wide[:, row : row + 8, column : column + 8] += g2 @ k2[:, :, row, column]
    g1 = wide[:, 1:9, 1:9] * (s1 > 0)
    return {
        "w": seen["flat"].T @ shares, "b": shares.sum(axis=0),
        "k2": np.tensordot(g2, seen["p2"], ([0, 1, 2], [0, 1, 2])), "c2": g2.sum(axis=(0, 1, 2)),
        "k1": np.tensordot(g1, seen["p1"], ([0, 1, 2], [0, 1, 2])), "c1": g1.sum(axis=(0, 1, 2)),
    }  # fmt: skip
