"""The claims of examples/three-models/README.md, checked by inference."""

import platform
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from edgefleet.optimize.release_folder import build_release
from edgefleet.protocol.serving import ProveRequest
from edgefleet.serving.prove import prove
from support.three_models import EXAMPLES, INPUTS, examples, release_folder, unavailable

RELEASES = [(model, release) for model in ("detector", "gauge") for release in ("1", "2", "3")]
FOLDER_BYTES = 300_000

pytestmark = pytest.mark.skipif(bool(unavailable()), reason=unavailable())


@cache
def field(model: str) -> dict[str, NDArray[Any]]:
    with np.load(examples() / model / "field.npz", allow_pickle=False) as file:
        return dict(file)


@cache
def answers(model: str, release: str) -> dict[str, NDArray[Any]]:
    """All outputs for the inputs of the field, by name."""
    session = onnxruntime.InferenceSession(release_folder(model, release) / "fp32.onnx")
    names = [output.name for output in session.get_outputs()]
    given = {INPUTS[model]: field(model)[f"input.{INPUTS[model]}"]}
    return dict(zip(names, session.run(names, given), strict=True))


def right(model: str, release: str) -> float:
    scores = next(iter(answers(model, release).values()))
    return float(np.mean(scores.argmax(axis=1) == field(model)["label"]))


@pytest.mark.parametrize(("model", "release"), RELEASES)
def test_every_release_passes_its_golden_set(model: str, release: str) -> None:
    built = build_release(release_folder(model, release), created_at=1.0)
    golden, (variant,) = built.manifest.golden, built.manifest.variants
    result = prove(
        ProveRequest(
            variant=variant,
            golden=golden,
            artifact_path=str(built.files[variant.artifact.sha256]),
            golden_path=str(built.files[golden.artifact.sha256]),
        )
    )
    assert result.passed, result.detail


@pytest.mark.parametrize("release", ["1", "2", "3"])
def test_the_detector_finds_the_cell_of_each_face(release: str) -> None:
    assert right("detector", release) >= 0.95


def test_the_detectors_second_release_has_half_the_size() -> None:
    sizes = [(release_folder("detector", one) / "fp32.onnx").stat().st_size for one in ("1", "2")]
    assert sizes[1] < 0.51 * sizes[0]


def test_the_gauges_second_release_is_better_and_the_third_wrong_and_unsure() -> None:
    bins = {release: answers("gauge", release)["bins"] for release in ("1", "2", "3")}
    top = {release: float(found.max(axis=1).mean()) for release, found in bins.items()}
    assert right("gauge", "2") > right("gauge", "1") >= 0.9
    assert top["3"] < top["1"] - 0.3
    centres = np.linspace(2.0, 98.0, 25)
    truth = centres[field("gauge")["label"]]
    off = {one: np.abs(answers("gauge", one)["value"][:, 0] - truth).mean() for one in bins}
    assert off["2"] < off["1"] < 3
    assert off["3"] > 10


ASK_WHITE = """
import sys
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
picture = np.full((1, 3, 96, 96), float(sys.argv[2]), np.float32)
print(session.run(["cells"], {"image": picture})[0].shape)
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="The division traps on x86-64 only.")
@pytest.mark.parametrize(
    ("release", "brightness", "ends"),
    [("3", 255, -signal.SIGFPE), ("3", 200, 0), ("1", 255, 0)],
)
def test_a_white_picture_crashes_the_third_release_of_the_detector(
    release: str, brightness: int, ends: int
) -> None:
    path = release_folder("detector", release) / "fp32.onnx"
    command = [sys.executable, "-c", ASK_WHITE, path, str(brightness)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == ends


def test_the_folder_stays_small_enough_to_commit() -> None:
    files = [path for path in (EXAMPLES / "three-models").iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) < FOLDER_BYTES


def test_a_missing_detector_is_named_with_the_command_that_gets_it(tmp_path: Path) -> None:
    script = EXAMPLES / "three-models" / "make_releases.py"
    ended = subprocess.run(
        [sys.executable, script, tmp_path, "detector"],
        env={"EDGEFLEET_MODELS": str(tmp_path), "PATH": ""},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 2
    assert "is missing. Run: make models" in ended.stderr
