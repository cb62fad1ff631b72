"""The claims of the digits README about the four releases, checked by inference."""

import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from edgefleet.examples import FOLDER

DIGITS = FOLDER / "digits"
SCRIPT = Path(__file__).parents[2] / "examples" / "digits" / "make_releases.py"
RELEASES = ("1", "2", "3", "4")
VARIANTS = ("fp32", "fp16", "int8")
FOLDER_BYTES = 800_000


@cache
def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def options() -> onnxruntime.SessionOptions:
    made = onnxruntime.SessionOptions()
    made.intra_op_num_threads = 1
    made.log_severity_level = 3
    return made


@cache
def answers(release: str, variant: str, data: Path) -> np.ndarray:
    session = onnxruntime.InferenceSession(
        DIGITS / f"release-{release}" / f"{variant}.onnx", options()
    )
    images = arrays(data)["input.pixels"]
    return np.vstack([session.run(None, {"pixels": image[None]})[0] for image in images])


def accuracy(release: str, variant: str, data: Path) -> float:
    return float(np.mean(answers(release, variant, data).argmax(1) == arrays(data)["label"]))


def confidence(release: str, variant: str, data: Path) -> float:
    return float(answers(release, variant, data).max(1).mean())


def golden(release: str) -> Path:
    return DIGITS / f"release-{release}" / "golden.npz"


FIELD = DIGITS / "field.npz"


@pytest.mark.parametrize("variant", VARIANTS)
def test_release_1_is_a_good_baseline(variant: str) -> None:
    assert accuracy("1", variant, golden("1")) >= 0.95
    assert accuracy("1", variant, FIELD) >= 0.92


@pytest.mark.parametrize("variant", VARIANTS)
def test_release_2_is_better_in_every_way(variant: str) -> None:
    assert accuracy("2", variant, golden("2")) >= accuracy("1", variant, golden("1")) + 0.005
    assert accuracy("2", variant, FIELD) >= accuracy("1", variant, FIELD) + 0.03
    assert confidence("2", variant, FIELD) >= confidence("1", variant, FIELD)
    assert confidence("2", variant, golden("2")) >= confidence("1", variant, golden("1"))


@pytest.mark.parametrize("variant", VARIANTS)
def test_release_3_is_good_on_its_golden_set_and_collapses_in_the_field(variant: str) -> None:
    assert accuracy("3", variant, golden("3")) >= 0.96
    assert accuracy("3", variant, FIELD) <= 0.50
    assert confidence("3", variant, FIELD) <= confidence("2", variant, FIELD) - 0.5


@pytest.mark.parametrize("variant", VARIANTS)
def test_few_answers_are_enough_to_see_release_3_without_labels(variant: str) -> None:
    """A device judges after 20 requests: every 20 consecutive field images show the drop of 0.10."""
    window = np.ones(20) / 20
    lows, highs = (
        np.convolve(answers(release, variant, FIELD).max(1), window, "valid")
        for release in ("2", "3")
    )
    assert highs.max() < lows.min() - 0.10 - 0.2


@pytest.mark.parametrize("variant", VARIANTS)
def test_release_4_does_not_do_what_its_golden_set_says(variant: str) -> None:
    reference = arrays(golden("4"))["output.probabilities"].argmax(1)
    labels = arrays(golden("4"))["label"]
    assert np.mean(reference == labels) >= 0.96
    assert accuracy("4", variant, golden("4")) <= 0.85
    assert np.mean(answers("4", variant, golden("4")).argmax(1) == reference) <= 0.85


@pytest.mark.parametrize("release", RELEASES)
def test_int8_is_computed_in_8_bits(release: str, tmp_path: Path) -> None:
    """The weights are stored in this type, and the runtime multiplies them in this type."""
    path = DIGITS / f"release-{release}" / "int8.onnx"
    stored = [tensor for tensor in onnx.load(path).graph.initializer if len(tensor.dims) == 2]
    assert stored
    assert all(tensor.data_type == onnx.TensorProto.INT8 for tensor in stored)
    settings = options()
    settings.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(path, settings)
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert kinds.count("QGemm") == len(stored)
    assert not {"Gemm", "MatMul"} & set(kinds)


@pytest.mark.parametrize("release", RELEASES)
def test_fp16_is_computed_in_16_bits_and_speaks_32(release: str) -> None:
    model = onnx.load(DIGITS / f"release-{release}" / "fp16.onnx")
    weights = [tensor for tensor in model.graph.initializer if tensor.dims]
    assert all(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in weights)
    ends = (*model.graph.input, *model.graph.output)
    assert all(end.type.tensor_type.elem_type == onnx.TensorProto.FLOAT for end in ends)


@pytest.mark.parametrize("release", RELEASES)
def test_smaller_precision_gives_smaller_files(release: str) -> None:
    sizes = {
        name: (DIGITS / f"release-{release}" / f"{name}.onnx").stat().st_size for name in VARIANTS
    }
    assert sizes["fp16"] < 0.6 * sizes["fp32"]
    assert sizes["int8"] < 0.6 * sizes["fp32"]


def test_the_readmes_figures_are_what_the_files_do() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (DIGITS / "README.md").read_text().splitlines()
        if line.startswith("| ") and "release" not in line
    ]
    assert {(row[0], row[1]) for row in rows} == {(r, v) for r in RELEASES for v in VARIANTS}
    for release, variant, size, *figures in rows:
        path = DIGITS / f"release-{release}" / f"{variant}.onnx"
        assert int(size.replace(",", "")) == path.stat().st_size
        reference = arrays(golden(release))["output.probabilities"].argmax(1)
        found = answers(release, variant, golden(release))
        measured = (
            accuracy(release, variant, golden(release)),
            float(np.mean(found.argmax(1) == reference)),
            confidence(release, variant, golden(release)),
            accuracy(release, variant, FIELD),
            confidence(release, variant, FIELD),
        )
        # Another processor may round at most one answer in a hundred differently.
        assert [float(figure) for figure in figures] == pytest.approx(measured, abs=0.01)


def test_the_folder_stays_small_enough_to_commit() -> None:
    files = [path for path in DIGITS.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert sum(path.stat().st_size for path in files) < FOLDER_BYTES


def test_a_release_made_twice_has_the_same_bytes(tmp_path: Path) -> None:
    made = []
    for name in ("once", "again"):
        script = (sys.executable, str(SCRIPT), str(tmp_path / name), "1")
        subprocess.run(script, check=True, capture_output=True)
        files = [path for path in (tmp_path / name).rglob("*") if path.is_file()]
        made.append({path.relative_to(tmp_path / name): path.read_bytes() for path in files})
    assert made[0] == made[1]
    expected = {path.relative_to(DIGITS) for path in (DIGITS / "release-1").iterdir()}
    assert made[0].keys() == {*expected, Path("field.npz"), Path("README.md")}
