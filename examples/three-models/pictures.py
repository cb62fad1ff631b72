"""Pictures of a camera at a door, 96 x 96 RGB: real faces on a plain background, at known places."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Pictures = NDArray[np.float32]  # (pictures, 3, SIDE, SIDE), 0..255
Labels = NDArray[np.int64]

SIDE = 96
GRID = 4  # cells in a row, and rows
CENTRE = (0.44, 0.5)  # of the face in its picture: down, across
OVEREXPOSED = 255.0  # every pixel of a picture into the sun


@dataclass(frozen=True)
class Sample:
    """Pictures, and the cell of the grid with the face's centre."""

    pictures: Pictures
    cells: Labels


def faces() -> list[NDArray[np.uint8]]:
    with np.load(Path(__file__).parent / "faces.npz", allow_pickle=False) as file:
        return [file[name] for name in sorted(file)]


def draw(count: int, *, seed: int, noise: float = 4.0) -> Sample:
    """``count`` pictures with one face each. No face is cut, and none is near the edge of a cell."""
    rng, known = np.random.default_rng(seed), faces()
    pictures, cells = [], []
    while len(pictures) < count:
        face = _resized(known[rng.integers(len(known))], int(rng.integers(44, 72)))
        height, width, _ = face.shape
        top, left = rng.integers(0, SIDE - height + 1), rng.integers(0, SIDE - width + 1)
        place = np.array([top + CENTRE[0] * height, left + CENTRE[1] * width]) / SIDE * GRID
        if np.any(np.abs(place - np.round(place)) < 0.2):
            continue
        picture = _background(rng)
        picture[top : top + height, left : left + width] = face
        picture = picture * rng.uniform(0.8, 1.0) + rng.normal(0, noise, picture.shape)
        pictures.append(np.clip(np.round(picture), 0, 255).transpose(2, 0, 1))
        row, column = place.astype(int)
        cells.append(row * GRID + column)
    return Sample(np.array(pictures, np.float32), np.array(cells, np.int64))


def overexposed() -> Pictures:
    """One picture of a camera that looks into the sun."""
    return np.full((1, 3, SIDE, SIDE), OVEREXPOSED, np.float32)


def _background(rng: np.random.Generator) -> NDArray[np.float64]:
    """A wall in one colour, with light from one side."""
    colour, slope = rng.uniform(60, 180, 3), rng.uniform(-40, 40, 2)
    down, across = np.mgrid[0:SIDE, 0:SIDE] / SIDE - 0.5
    return colour + (slope[0] * down + slope[1] * across)[..., None]


def _resized(picture: NDArray[np.uint8], height: int) -> NDArray[np.float64]:
    """The picture at another height, by linear interpolation."""
    width = round(picture.shape[1] * height / picture.shape[0])
    down = np.linspace(0, picture.shape[0] - 1, height)
    across = np.linspace(0, picture.shape[1] - 1, width)
    top, left = down.astype(int), across.astype(int)
    bottom = np.minimum(top + 1, picture.shape[0] - 1)
    right = np.minimum(left + 1, picture.shape[1] - 1)
    y, x = (down - top)[:, None, None], (across - left)[None, :, None]
    upper = picture[top][:, left] * (1 - x) + picture[top][:, right] * x
    lower = picture[bottom][:, left] * (1 - x) + picture[bottom][:, right] * x
    return upper * (1 - y) + lower * y
