"""The claims of the parity README, checked by inference."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from edgefleet.examples import FOLDER

PARITY = FOLDER / "parity"
SCRIPT = Path(__file__).parents[2] / "examples" / "parity" / "make_release.py"
RELEASE = PARITY / "release-1"
FIELD = PARITY / "field.npz"
FOLDER_BYTES = 100_000


def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def accuracy(variant: str, data: Path) -> float:
    session = onnxruntime.InferenceSession(
        RELEASE / f"{variant}.onnx", providers=["CPUExecutionProvider"]
    )
    cases = arrays(data)
    answers = [
        session.run(None, {"pixels": one[None]})[0].argmax() for one in cases["input.pixels"]
    ]
    return float(np.mean(np.array(answers) == cases["label"]))


@pytest.mark.parametrize("variant", ["fp32", "fp16", "int8"])
def test_the_figures_of_the_readme_are_what_the_files_do(variant: str) -> None:
    (row,) = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (PARITY / "README.md").read_text().splitlines()
        if line.startswith(f"| 1 | {variant} |")
    ]
    assert int(row[2].replace(",", "")) == (RELEASE / f"{variant}.onnx").stat().st_size
    found = accuracy(variant, RELEASE / "golden.npz"), accuracy(variant, FIELD)
    assert (float(row[3]), float(row[6])) == pytest.approx(found, abs=0.01)
    assert min(found) >= 0.95


def test_it_asks_another_question_about_the_images_of_digits() -> None:
    digits, parity = (arrays(FOLDER / name / "field.npz") for name in ("digits", "parity"))
    assert np.array_equal(digits["input.pixels"], parity["input.pixels"])
    assert np.array_equal(digits["label"] % 2, parity["label"])


def test_it_shares_no_file_with_digits() -> None:
    files = {path.read_bytes() for path in (FOLDER / "digits").glob("release-*/*")}
    assert files.isdisjoint(path.read_bytes() for path in RELEASE.iterdir())


def test_the_folder_stays_small_enough_to_commit() -> None:
    files = [path for path in PARITY.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert sum(path.stat().st_size for path in files) < FOLDER_BYTES


def test_a_release_made_twice_has_the_same_bytes(tmp_path: Path) -> None:
    made = []
    for name in ("once", "again"):
        script = (sys.executable, str(SCRIPT), str(tmp_path / name))
        subprocess.run(script, check=True, capture_output=True)
        files = [path for path in (tmp_path / name).rglob("*") if path.is_file()]
        made.append({path.relative_to(tmp_path / name): path.read_bytes() for path in files})
    assert made[0] == made[1]
    expected = {path.relative_to(PARITY) for path in RELEASE.iterdir()}
    assert made[0].keys() == {*expected, Path("field.npz"), Path("README.md")}
