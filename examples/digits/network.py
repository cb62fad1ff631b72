"""A small fully connected network, trained in NumPy so that a seed gives the same weights."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from digits import INK, Pixels
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Batches = Callable[[np.random.Generator], tuple[Pixels, Matrix]]
"""The images and target probabilities of one epoch."""

BATCH = 50


@dataclass(frozen=True)
class Network:
    """ReLU layers, then softmax. ``weights[i]`` is (in, out)."""

    weights: tuple[Matrix, ...]
    biases: tuple[Matrix, ...]

    def probabilities(self, pixels: Pixels) -> Matrix:
        """(images, classes)."""
        return _forward(self.weights, self.biases, pixels / INK)[-1]


def train(
    epoch: Batches,
    *,
    hidden: tuple[int, ...],
    classes: int,
    epochs: int,
    seed: int,
    inputs: int = 64,
) -> Network:
    """Minimise cross entropy with Adam (Kingma and Ba, 2015) and a cosine schedule."""
    rng = np.random.default_rng(seed)
    sizes = (inputs, *hidden, classes)
    weights = [rng.normal(0, np.sqrt(2 / a), (a, b)) for a, b in itertools.pairwise(sizes)]
    biases = [np.zeros(size) for size in sizes[1:]]
    adam = _Adam(weights + biases)
    for number in range(epochs):
        pixels, targets = epoch(rng)
        rate = 1e-3 * (1 + np.cos(np.pi * number / epochs))
        order = rng.permutation(len(pixels))
        for start in range(0, len(pixels) - BATCH + 1, BATCH):
            batch = order[start : start + BATCH]
            adam.step(_gradients(weights, biases, pixels[batch] / INK, targets[batch]), rate)
    return Network(tuple(weights), tuple(biases))


def _forward(
    weights: "list[Matrix] | tuple[Matrix, ...]",
    biases: "list[Matrix] | tuple[Matrix, ...]",
    inputs: Matrix,
) -> list[Matrix]:
    """The inputs of each layer, and last the probabilities."""
    layers = [inputs]
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        layers.append(np.maximum(layers[-1] @ weight + bias, 0))
    logits = layers[-1] @ weights[-1] + biases[-1]
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return [*layers, powers / powers.sum(axis=1, keepdims=True)]


def _gradients(
    weights: list[Matrix], biases: list[Matrix], inputs: Matrix, targets: Matrix
) -> list[Matrix]:
    *layers, probabilities = _forward(weights, biases, inputs)
    back = (probabilities - targets) / len(inputs)
    of_weights: list[Matrix] = []
    of_biases: list[Matrix] = []
    for weight, layer in zip(reversed(weights), reversed(layers), strict=True):
        of_weights.insert(0, layer.T @ back + 1e-4 * weight)
        of_biases.insert(0, back.sum(axis=0))
        back = (back @ weight.T) * (layer > 0)
    return of_weights + of_biases


class _Adam:
    """Changes the arrays it was given, in place."""

    def __init__(self, arrays: list[Matrix]) -> None:
        self._arrays = arrays
        self._mean = [np.zeros_like(array) for array in arrays]
        self._square = [np.zeros_like(array) for array in arrays]
        self._steps = 0

    def step(self, gradients: list[Matrix], rate: float) -> None:
        self._steps += 1
        rate *= np.sqrt(1 - 0.999**self._steps) / (1 - 0.9**self._steps)
        for number, gradient in enumerate(gradients):
            mean, square = self._mean[number], self._square[number]
            mean[:] += 0.1 * (gradient - mean)
            square[:] += 0.001 * (gradient * gradient - square)
            self._arrays[number][:] -= rate * mean / (np.sqrt(square) + 1e-8)
