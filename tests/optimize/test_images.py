"""Folders of images as data, and what is told of their preprocessing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgefleet.base.errors import OperatorError, PublisherError
from edgefleet.optimize.data_files import DataReader
from edgefleet.optimize.image_process import prepared
from edgefleet.optimize.preprocessing import Preprocessing, preprocessing_of
from edgefleet.protocol.release import TensorSpec
from edgefleet.serving.model_file import ModelFacts
from edgefleet.serving.runtime_versions import FormatVersions

HOW = Preprocessing(size=(4, 6), mean=(0.5, 0.25, 0.0), std=(0.5, 1.0, 2.0), layout="nchw")


def facts(*shape: int, classes: int = 3) -> ModelFacts:
    return ModelFacts(
        (TensorSpec(name="image", datatype="FP32", shape=shape),),
        (TensorSpec(name="scores", datatype="FP32", shape=(-1, classes)),),
        FormatVersions(9, 17),
    )


def image(path: Path, color: Any = (255, 51, 0), size: tuple[int, int] = (6, 4)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)
    return path


def test_pixels_become_inputs_as_stated(tmp_path: Path) -> None:
    path = image(tmp_path / "a.png")
    case = prepared(path, HOW)
    assert case.shape == (3, 4, 6)
    # (255/255 - 0.5) / 0.5, (51/255 - 0.25) / 1, (0 - 0) / 2
    assert case[:, 0, 0] == pytest.approx([1.0, -0.05, 0.0], abs=1e-6)
    last = prepared(path, Preprocessing(size=(4, 6), mean=(0.0,) * 3, std=(1.0,) * 3,
                                        layout="nhwc", color="bgr"))  # fmt: skip
    assert last.shape == (4, 6, 3)
    assert last[0, 0] == pytest.approx([0.0, 0.2, 1.0], abs=1e-6)
    grey = Preprocessing(size=(4, 6), mean=(0.0,), std=(1.0,), layout="nchw", color="grey")
    assert prepared(image(tmp_path / "g.png", (51, 51, 51)), grey)[0, 0, 0] == pytest.approx(0.2)


def test_a_crop_keeps_the_proportions_and_takes_the_middle(tmp_path: Path) -> None:
    pixels = np.zeros((4, 12, 3), np.uint8)
    pixels[:, 4:8] = 255  # the middle third
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    how: dict[str, Any] = {"size": (4, 4), "mean": (0.0,) * 3, "std": (1.0,) * 3, "layout": "nchw"}
    crop = prepared(tmp_path / "wide.png", Preprocessing(**how, resize="crop"))
    stretch = prepared(tmp_path / "wide.png", Preprocessing(**how, resize="stretch"))
    assert crop.min() == 1.0
    assert stretch[0, 0, 0] == 0.0
    with pytest.raises(PublisherError, match="4x12 pixels, and resize=none wants 4x4"):
        prepared(tmp_path / "wide.png", Preprocessing(**how, resize="none"))


@pytest.mark.long
def test_a_folder_has_its_classes_and_its_preprocessing_in_the_facts(tmp_path: Path) -> None:
    data = tmp_path / "test"
    for number, name in enumerate(("cat", "dog", "owl")):
        for count in range(2):
            image(data / name / f"{count}.png", (number * 10, 0, 0))
    (data / "cat" / ".hidden.png").write_bytes(b"")
    (data / "notes.txt").write_text("no image")
    reader = DataReader(facts(-1, 3, 4, 6), tmp_path, HOW)
    samples = reader.evaluation(data)
    assert samples.truth is not None
    assert samples.truth.tolist() == [0, 0, 1, 1, 2, 2]
    assert samples.inputs["image"].shape == (6, 3, 4, 6)
    assert samples.inputs["image"][:, 0, 0, 0] * 0.5 + 0.5 == pytest.approx(
        [0, 0, 10 / 255, 10 / 255, 20 / 255, 20 / 255], abs=1e-6
    )
    told = reader.facts["evaluation"]
    assert (told["images"], told["classes"]) == (6, ["cat", "dog", "owl"])
    assert told["preprocessing"]["mean"] == (0.5, 0.25, 0.0)  # type: ignore[index]
    (data / "classes.txt").write_text("owl\nwolf\ndog\ncat\n")
    again = DataReader(facts(-1, 3, 4, 6, classes=4), tmp_path, HOW).evaluation(data)
    assert again.truth is not None
    assert again.truth.tolist() == [3, 3, 2, 2, 0, 0]
    assert len(reader.calibration(data)) == 6
    bad = image(data / "dog" / "2.png")
    bad.write_bytes(bad.read_bytes()[:40])
    with pytest.raises(PublisherError, match="cannot be read") as caught:
        reader.calibration(data)
    assert (caught.value.code, caught.value.field) == ("calibration_invalid", "2.png")


def refusal(tmp_path: Path, model: ModelFacts, how: Preprocessing | None = HOW) -> PublisherError:
    with pytest.raises(PublisherError) as caught:
        DataReader(model, tmp_path, how).evaluation(tmp_path / "data")
    assert caught.value.code == "evaluation_invalid"
    return caught.value


def test_a_folder_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    good = facts(-1, 3, 4, 6)
    assert "no images" in refusal(tmp_path, good).message
    image(data / "a" / "1.png")
    assert refusal(tmp_path, good, None).field == "preprocess"
    error = refusal(tmp_path, facts(-1, 4, 6, 3))
    assert error.field == "image"
    assert "[3, 4, 6], and the input [4, 6, 3]" in error.message
    error = refusal(tmp_path, good)
    assert "1 classes, and the model answers 3" in error.message
    assert "classes.txt" in error.hint
    loose = image(data / "2.png")
    assert refusal(tmp_path, good).field == "2.png"
    loose.unlink()
    (data / "classes.txt").write_text("b\nc\n")
    assert "'a' is not in classes.txt" in refusal(tmp_path, good).message


def test_images_with_other_than_eight_bits_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    Image.fromarray(np.full((4, 6), 40_000, np.uint16)).save(path)
    with pytest.raises(PublisherError, match="not of 8 bits") as caught:
        prepared(path, HOW)
    assert caught.value.field == "deep.png"


@pytest.mark.parametrize(
    ("given", "field", "told"),
    [
        ({"size": "4x4", "mean": 0.5, "std": 0.5}, "layout", "'layout' is missing"),
        ({"size": "4", "mean": "0,0,0", "std": "1,1,1", "layout": "nchw"}, "size", "length"),
        ({"size": "4x4", "mean": "0,0,0", "std": "1,1,0", "layout": "nchw"}, "std", "> 0"),
        ({"size": "4x4", "mean": 0.5, "std": "1,1,1", "layout": "nchw"}, "mean", "3 channels"),
        ({"size": "4x4", "mean": "a", "std": 1, "layout": "nchw"}, "mean", "array"),
        ({"size": "4x4", "mean": 0, "std": 1, "layout": "nchw", "color": "x"}, "color", "enum"),
    ],
)
def test_preprocessing_that_is_not_whole_is_refused(
    given: dict[str, object], field: str, told: str
) -> None:
    with pytest.raises(OperatorError, match=told) as caught:
        preprocessing_of(given)
    assert (caught.value.code, caught.value.field) == ("setting_invalid", f"preprocess.{field}")


def test_preprocessing_is_read_from_the_words_of_the_command() -> None:
    made = preprocessing_of(
        {"size": "4x6", "mean": "0.5,0.25,0", "std": "0.5,1,2", "layout": "nchw"}
    )
    assert made == HOW
