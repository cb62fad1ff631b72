"""A published detector, whose weights are FP16, as full-integer TFLite. `make models-tflite` gets it.

SSD MobileNetV2 of @mediapipe/objectron (Apache-2.0): 4.9 million weights, input 300x300.
"""

import os
import tarfile
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from edgefleet.optimize.edgetpu.coverage import coverage
from edgefleet.optimize.evaluation_data import CalibrationData
from edgefleet.optimize.recipe import StaticInt8
from edgefleet.optimize.tflite_steps.graph import float_model, left_float, read_model
from edgefleet.optimize.tflite_steps.technique import TfliteTechnique

pytestmark = pytest.mark.long

PACKAGE = "mediapipe-objectron-0.4.1675468480.tgz"
PART = slice(184, 9_987_912)  # of the packed assets
DIGEST = "d0a5255bf8c4f5a0bc4240741a76c41d5e939f7655078f945f50ab53a9375da6"
INPUT = "normalized_input_image_tensor"


@cache
def detector() -> bytes:
    default = Path.home() / ".cache" / "edgefleet" / "models"
    package = Path(os.environ.get("EDGEFLEET_MODELS") or default) / PACKAGE
    if not package.is_file():
        pytest.skip("the detector is not here: make models-tflite")
    with tarfile.open(package) as archive:
        assets = archive.extractfile("package/objectron_solution_packed_assets.data")
        assert assets is not None
        data = assets.read()[PART]
    assert sha256(data).hexdigest() == DIGEST
    return data


def scenes(count: int, seed: int) -> NDArray[np.float32]:
    """Coloured tiles of 25 pixels."""
    tiles = np.random.default_rng(seed).uniform(-1, 1, (count, 12, 12, 3)).astype(np.float32)
    return np.kron(tiles, np.ones((1, 25, 25, 1), np.float32))


def outputs(path: Path, scene: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Boxes and scores, as floats."""
    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    (given,) = interpreter.get_input_details()
    scale, zero = given["quantization"]
    wanted: NDArray[Any] = scene
    if scale:
        wanted = np.clip(np.rint(scene / scale) + zero, -128, 127).astype(np.int8)
    interpreter.set_tensor(given["index"], wanted)
    interpreter.invoke()
    made = []
    for one in sorted(interpreter.get_output_details(), key=lambda one: one["shape"][-1]):
        scale, zero = one["quantization"]
        values = interpreter.get_tensor(one["index"]).astype(np.float32)
        made.append((values - zero) * np.float32(scale) if scale else values)
    return made


def test_a_published_detector_becomes_a_full_integer_file(tmp_path: Path) -> None:
    source, made = tmp_path / "half.tflite", tmp_path / "int8.tflite"
    source.write_bytes(detector())
    found = float_model(detector())
    assert len(found.operators) == 97  # without those that widen the weights
    step = StaticInt8(activations="int8", integer_io=True)
    TfliteTechnique().apply(step, source, CalibrationData({INPUT: scenes(4, seed=1)}), made)
    data = made.read_bytes()
    assert len(found.data) / len(data) > 3.5
    assert left_float(data) == ()
    assert not read_model(data)[1]
    assert coverage(made).text == "108 of 108 operators map to the Edge TPU."
    for wanted, got in zip(
        outputs(source, scenes(1, seed=2)), outputs(made, scenes(1, seed=2)), strict=True
    ):
        assert np.corrcoef(wanted.ravel(), got.ravel())[0, 1] > 0.9
