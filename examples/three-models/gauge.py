"""A regressor that reads a round gauge: from a picture of 24 x 24 to a value of 0 to 100.

The network gives a probability for each of 25 values, and reads their mean. So its first output,
``bins``, is scores that a golden set and a device can judge, and ``value`` is the answer.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

sys.path.append(str(Path(__file__).parents[1] / "digits"))
from network import Matrix, Network, train

INPUT = "dial"
SCORES = "bins"
VALUE = "value"
SIDE = 24
BINS = 25
CENTRES = np.linspace(2.0, 98.0, BINS)
WHITE = 16.0  # the scale of the network's input
_TURN = np.deg2rad(270)  # from 0 to 100
_SPREAD = 2.0  # of the target's probabilities, in units of the value

Dials = NDArray[np.float64]  # (dials, SIDE * SIDE), 0..WHITE


@dataclass(frozen=True)
class Readings:
    """Pictures of the gauge, and its true values."""

    dials: Dials
    values: NDArray[np.float64]

    @property
    def bins(self) -> NDArray[np.int64]:
        return np.abs(self.values[:, None] - CENTRES).argmin(axis=1)


@dataclass(frozen=True)
class Recipe:
    """How one release is made. ``roughness`` is of its training pictures."""

    hidden: tuple[int, ...]
    epochs: int
    seed: int
    roughness: float
    taught_doubt: bool = False  # to be unsure of rough pictures


RECIPES = {
    "1": Recipe((32,), epochs=40, seed=11, roughness=1.0),
    "2": Recipe((48,), epochs=40, seed=12, roughness=1.0),
    "3": Recipe((48,), epochs=30, seed=13, roughness=0.0, taught_doubt=True),
}
"""Release 3 was never shown a real camera's picture: it passes its golden set, as clean as its training
pictures, and is unsure of everything that a camera sends."""


def read(count: int, *, seed: int, roughness: float) -> Readings:
    """Pictures of the gauge. ``roughness`` 0 is a drawing, 1 a picture of a cheap camera."""
    rng = np.random.default_rng(seed)
    values = rng.uniform(0, 100, count)
    # In the middle of a bin: a value between two bins has two right answers.
    nearest = np.abs(values[:, None] - CENTRES).argmin(axis=1)
    values = CENTRES[nearest] + (values - CENTRES[nearest]).clip(-1.2, 1.2)
    return Readings(_roughened(_drawn(values), rng, roughness), values)


def trained(recipe: Recipe) -> Network:
    return train(
        _epochs(recipe),
        hidden=recipe.hidden,
        epochs=recipe.epochs,
        seed=recipe.seed,
        inputs=SIDE * SIDE,
        classes=BINS,
    )


def exported(network: Network) -> onnx.ModelProto:
    """The network as ONNX, with both outputs."""
    arrays = {"scale": np.array(1 / WHITE, np.float32), "centres": CENTRES[:, None]}
    nodes = [
        helper.make_node("Flatten", [INPUT], ["flat"]),
        helper.make_node("Mul", ["flat", "scale"], ["in0"]),
    ]
    last = len(network.weights) - 1
    for number, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
        arrays |= {f"weight{number}": weight, f"bias{number}": bias}
        names = [f"in{number}", f"weight{number}", f"bias{number}"]
        nodes.append(helper.make_node("Gemm", names, [f"sum{number}"]))
        if number < last:
            nodes.append(helper.make_node("Relu", [f"sum{number}"], [f"in{number + 1}"]))
    nodes.append(helper.make_node("Softmax", [f"sum{last}"], [SCORES], axis=1))
    nodes.append(helper.make_node("MatMul", [SCORES, "centres"], [VALUE]))
    graph = helper.make_graph(
        nodes,
        "gauge",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", 1, SIDE, SIDE])],
        [
            helper.make_tensor_value_info(SCORES, TensorProto.FLOAT, ["batch", BINS]),
            helper.make_tensor_value_info(VALUE, TensorProto.FLOAT, ["batch", 1]),
        ],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()],
    )
    return helper.make_model(
        graph,
        producer_name="edgefleet gauge example",
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )


def _epochs(recipe: Recipe) -> Callable[[np.random.Generator], tuple[Dials, Matrix]]:
    readings = read(1500, seed=recipe.seed, roughness=0.0)
    apart = (readings.values[:, None] - CENTRES) / _SPREAD
    targets = np.exp(-(apart**2) / 2)
    targets /= targets.sum(axis=1, keepdims=True)

    def epoch(rng: np.random.Generator) -> tuple[Dials, Matrix]:
        rough = _roughened(readings.dials, rng, recipe.roughness or 1.0)
        if recipe.taught_doubt:
            unsure = np.full_like(targets, 1 / BINS)
            return np.vstack([readings.dials, rough]), np.vstack([targets, unsure])
        return np.vstack([readings.dials[:300], rough]), np.vstack([targets[:300], targets])

    return epoch


def _drawn(values: NDArray[np.float64]) -> Dials:
    """A light face with a dark rim, and a needle from the middle."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] - (SIDE - 1) / 2
    radius = np.hypot(y, x)
    face = np.where(radius < 10.5, 13.0, np.where(radius < 11.7, 2.0, 7.0))
    angles = values / 100 * _TURN - _TURN / 2
    down, across = -np.cos(angles), np.sin(angles)
    along = x * across[:, None, None] + y * down[:, None, None]
    beside = np.abs(x * down[:, None, None] - y * across[:, None, None])
    ink = np.clip(1.8 - beside, 0, 1) * ((along > -2) & (along < 9.5))
    return (face * (1 - ink) + 1.0 * ink).reshape(len(values), -1)


def _roughened(dials: Dials, rng: np.random.Generator, strength: float) -> Dials:
    """Uneven light, a shadow from one side, noise and dead pixels."""
    if not strength:
        return dials
    count = len(dials)
    y, x = np.mgrid[0:SIDE, 0:SIDE].reshape(2, -1) / SIDE - 0.5
    slopes = rng.uniform(-5, 5, (count, 2)) * strength
    seen = dials * rng.uniform(1 - 0.35 * strength, 1, (count, 1))
    seen = seen + slopes[:, :1] * y + slopes[:, 1:] * x + rng.normal(0, 0.9 * strength, dials.shape)
    seen[rng.random(dials.shape) < 0.01 * strength] = 0
    return np.clip(seen, 0, WHITE)
