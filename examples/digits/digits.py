"""Handwritten digits, and what a cheap camera makes of them.

scikit-learn's copy of the UCI "Optical Recognition of Handwritten Digits" test set: 1,797 images
of 8 x 8 pixels, each 0 (paper) to 16 (ink).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

Pixels = NDArray[np.float64]  # (images, 64), 0..16
Labels = NDArray[np.int64]

INK = 16.0
CLASSES = 10
_TRAIN, _GOLDEN = 1100, 397  # the other 300 are seen in the field


@dataclass(frozen=True)
class Split:
    pixels: Pixels
    labels: Labels


def splits() -> tuple[Split, Split, Split]:
    """Train, golden and field: no image stands in two of them."""
    data = load_digits()
    order = np.random.default_rng(20240).permutation(len(data.target))
    parts = np.split(order, [_TRAIN, _TRAIN + _GOLDEN])
    train, golden, field = (
        Split(data.data[part], data.target[part].astype(np.int64)) for part in parts
    )
    return train, golden, field


def through_camera(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """What one camera sees: soft focus, uneven light, its own fixed pattern, dead and hot pixels.

    The values are steps of 1/8, as from an 8-bit sensor.
    """
    count = len(pixels)
    pattern = rng.normal(0, 0.9, 64)
    seen = _blur(pixels, 0.2) * rng.uniform(0.65, 0.95, (count, 1)) + rng.uniform(
        0, 1.5, (count, 1)
    )
    seen += pattern + rng.normal(0, 0.8, seen.shape)
    seen[:, [9, 45]] = 0
    seen[:, 22] = INK
    return np.clip(np.round(seen * 8) / 8, 0, INK)


def roughened(pixels: Pixels, rng: np.random.Generator, strength: float) -> Pixels:
    """Training images as many different cameras might see them; ``strength`` 0 leaves them."""
    count = len(pixels)
    light = rng.uniform(1 - 0.45 * strength, 1 + 0.05 * strength, (count, 1))
    seen = _blur(pixels, 0.25 * strength * rng.uniform(0, 1.2)) * light
    seen += rng.uniform(0, 2.5 * strength, (count, 1))
    seen += rng.normal(0, 1.5 * strength, seen.shape)
    fate = rng.random(seen.shape)
    seen[fate < 0.03 * strength] = 0
    seen[fate > 1 - 0.02 * strength] = INK
    return np.clip(seen, 0, INK)


def _blur(pixels: Pixels, amount: float) -> Pixels:
    """Mix each pixel with the mean of its four neighbours."""
    image = pixels.reshape(-1, 8, 8)
    wide = np.pad(image, ((0, 0), (1, 1), (1, 1)))
    around = wide[:, :-2, 1:-1] + wide[:, 2:, 1:-1] + wide[:, 1:-1, :-2] + wide[:, 1:-1, 2:]
    return ((1 - amount) * image + amount * around / 4).reshape(-1, 64)
