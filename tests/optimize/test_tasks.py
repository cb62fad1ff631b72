"""The task, the comparison and the class scores of a release folder fit together."""

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from edgefleet.base.errors import PublisherError
from edgefleet.optimize.release_folder import build_release
from edgefleet.protocol.comparisons import Elementwise, PluginComparison, Top1
from edgefleet.protocol.release import ReleaseManifest, unjudged
from support.task_models import boxes, diabetes, graph_bytes, tensor, wine

GOLDEN = '\n[golden]\nfile = "golden.npz"\nmin_accuracy = 0.5\nmin_agreement = 0.5\n'
VARIANT = '\n[[variant]]\nprofile = "{profile}"\nprecision = "{precision}"\nfile = "{file}"\n'
QUALITY = '\n[quality]\noutput = "{output}"\nscores = "probabilities"\n'
COMPARE = "\n[compare]\nabsolute = 1.0\nrelative = 0.0\n"


def toml(task: str, middle: str, *variants: tuple[str, str, str]) -> str:
    rows = variants or (("generic_x86", "fp32", "m.onnx"),)
    shown = "".join(
        VARIANT.format(profile=profile, precision=precision, file=file)
        for profile, precision, file in rows
    )
    return f'model = "m"\nrelease = "1"\ntask = "{task}"\n{GOLDEN}{middle}{shown}'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A regressor, with its samples as the golden set."""
    model = diabetes()
    (tmp_path / "m.onnx").write_bytes(model.good)
    given, truth = model.samples["X"], model.samples["y"].astype(np.float32)[:, None]
    np.savez(
        tmp_path / "golden.npz",
        **{"input.X": given, "output.variable": truth, "truth.variable": truth},
    )
    return tmp_path


def built(folder: Path, text: str) -> ReleaseManifest:
    (folder / "release.toml").write_text(text)
    return build_release(folder, created_at=0.0).manifest


def refusal(folder: Path, text: str) -> PublisherError:
    with pytest.raises(PublisherError) as caught:
        built(folder, text)
    assert caught.value.code == "release_file_invalid"
    return caught.value


def test_a_regressor_is_compared_by_its_values(folder: Path) -> None:
    manifest = built(folder, toml("regression", COMPARE))
    assert manifest.golden.comparison == Elementwise(
        outputs=("variable",), absolute=1.0, relative=0.0
    )
    assert manifest.quality is None
    assert unjudged(manifest)
    assert manifest.variants[0].min_runtime == "1.22"


def test_a_regressor_that_claims_to_be_a_classifier_of_one_class_is_refused(folder: Path) -> None:
    error = refusal(folder, toml("classification", QUALITY.format(output="variable")))
    assert error.field == "quality.output"
    assert "one class, so every answer would be right" in error.message
    assert 'task = "regression"' in error.hint


@pytest.mark.parametrize(
    ("task", "middle", "field"),
    [
        ("classification", "", ""),  # the table [quality] is missing
        ("regression", "", "compare"),
        ("regression", QUALITY.format(output="variable") + COMPARE, "quality"),
        ("regression", '\n[compare]\nkind = "cosine"\n', "compare"),
        ("regression", COMPARE + "iou = 0.5\n", "compare.iou"),
        ("regression", COMPARE + "absolut = 0.5\n", "compare"),
        ("regression", "\n[compare]\nabsolute = -1.0\nrelative = 0.0\n", "compare.absolute"),
        ("regression", COMPARE + 'outputs = ["other"]\n', "compare"),
        ("detection", "\n[compare]\niou = 2.0\n", "compare.iou"),
        ("poetry", "", "task"),
    ],
)  # fmt: skip
def test_a_table_that_does_not_fit_the_task_is_refused(
    folder: Path, task: str, middle: str, field: str
) -> None:
    assert (refusal(folder, toml(task, middle)).field or "").startswith(field)


def test_a_plug_in_fits_every_task(folder: Path) -> None:
    middle = '\n[compare]\nkind = "plugin"\nname = "ours"\n'
    manifest = built(folder, toml("regression", middle))
    assert manifest.golden.comparison == PluginComparison(name="ours", outputs=("variable",))


def test_class_scores_need_not_be_the_first_output(tmp_path: Path) -> None:
    model = wine()
    (tmp_path / "m.onnx").write_bytes(model.good)
    count = len(model.samples["X"])
    np.savez(tmp_path / "golden.npz", **{
        "input.X": model.samples["X"], "label": model.samples["y"].astype(np.int64),
        "output.probabilities": np.zeros((count, 3), np.float32)})  # fmt: skip
    manifest = built(tmp_path, toml("classification", QUALITY.format(output="probabilities")))
    assert manifest.golden.comparison == Top1(output="probabilities")
    error = refusal(tmp_path, toml("classification", QUALITY.format(output="label")))
    assert "the scores are 'probabilities'" in error.hint


def test_one_file_under_two_precisions_is_refused(folder: Path) -> None:
    (folder / "half.onnx").write_bytes((folder / "m.onnx").read_bytes())
    rows = (("generic_x86", "fp32", "m.onnx"), ("jetson_nano", "fp16", "half.onnx"))
    error = refusal(folder, toml("regression", COMPARE, *rows))
    assert error.field == "variant[1].precision"
    assert "byte-identical" in error.message
    same = (("generic_x86", "fp32", "m.onnx"), ("jetson_nano", "fp32", "half.onnx"))
    assert len(built(folder, toml("regression", COMPARE, *same)).variants) == 2


def test_truth_of_boxes_may_have_another_number_of_boxes(tmp_path: Path) -> None:
    model = boxes()
    (tmp_path / "m.onnx").write_bytes(model.good)
    count = len(model.samples["X"])
    arrays = {
        "input.image": model.samples["X"],
        "output.boxes": np.zeros((count, 2, 6), np.float32),
        "truth.boxes": np.zeros((count, 5, 6), np.float32),
    }
    np.savez(tmp_path / "golden.npz", **arrays)
    assert built(tmp_path, toml("detection", "")).golden.cases == count
    arrays["truth.boxes"] = np.zeros((count, 5, 7), np.float32)
    np.savez(tmp_path / "golden.npz", **arrays)
    with pytest.raises(PublisherError) as caught:
        built(tmp_path, toml("detection", ""))
    assert (caught.value.code, caught.value.field) == ("golden_mismatch", "truth.boxes")


def test_text_is_compared_exactly_and_by_nothing_else(tmp_path: Path) -> None:
    node = helper.make_node("Identity", ["x"], ["y"])
    (tmp_path / "m.onnx").write_bytes(
        graph_bytes([node], [tensor("x", TensorProto.STRING, "n", 1)],
                    [tensor("y", TensorProto.STRING, "n", 1)], {})
    )  # fmt: skip
    words = np.array([["run"], ["stop"]])
    np.savez(tmp_path / "golden.npz", **{"input.x": words, "output.y": words, "truth.y": words})
    assert built(tmp_path, toml("text", "")).golden.cases == 2
    assert refusal(tmp_path, toml("none", COMPARE)).field == "compare"
