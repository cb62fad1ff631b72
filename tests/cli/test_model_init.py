"""``model init`` and ``model inspect``: a folder from a file and samples, and what a file is."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from sklearn.linear_model import LogisticRegression

from edgefleet.optimize.release_folder import build_release
from edgefleet.protocol.comparisons import Cosine, Elementwise, Exact, MeanIou, MeanPrecision, Top1
from support.command_line import CommandLine, Said
from support.task_models import MODELS, diabetes, exported, graph_bytes, tensor, wine

COMPARISONS = {
    "wine": Top1,
    "diabetes": Elementwise,
    "boxes": MeanPrecision,
    "masks": MeanIou,
    "vectors": Cosine,
    "texts": Exact,
}


def init(edgefleet: CommandLine, folder: Path, file: str, model: str, *more: str) -> Said:
    return edgefleet(
        "model", "init", str(folder / f"release-{file}"), "--file", str(folder / f"{file}.onnx"),
        "--samples", str(folder / "samples.npz"), "--model", model, *more,
    )  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_a_model_and_samples_make_a_release_folder(
    name: str, tmp_path: Path, edgefleet: CommandLine
) -> None:
    model = MODELS[name]()
    model.write(tmp_path)
    said = init(edgefleet, tmp_path, "good", name, *model.options, "--json")
    assert said.exit == 0, said.err
    assert (said.json["task"], said.json["proof"]["passed"]) == (model.task, True)
    built = build_release(tmp_path / "release-good", created_at=0.0).manifest
    assert built.task == model.task
    assert isinstance(built.golden.comparison, COMPARISONS[name])
    assert (built.quality is not None) is (model.task == "classification")
    assert built.golden.min_agreement > 0.97


def test_a_file_of_classes_names_them_in_the_release(
    tmp_path: Path, edgefleet: CommandLine
) -> None:
    wine().write(tmp_path)
    (tmp_path / "names.txt").write_text("barolo\ngrignolino\n")
    named = ("--classes", str(tmp_path / "names.txt"))
    said = init(edgefleet, tmp_path, "good", "wine", *named)
    assert said.exit == 2
    assert "2 names for output 'probabilities' of variant[0], which has 3." in said.err
    assert not (tmp_path / "release-good").exists()
    (tmp_path / "names.txt").write_text("barolo\n\nbarbera\n")
    assert (
        "names.txt, line 2: the name is empty."
        in init(edgefleet, tmp_path, "good", "wine", *named).err
    )
    (tmp_path / "names.txt").write_text("barolo\r\ngrignolino\r\nbarbera")
    said = init(edgefleet, tmp_path, "good", "wine", *named)
    assert (said.exit, "3 of probabilities: barolo, grignolino, barbera" in said.out) == (0, True)
    (classes,) = build_release(tmp_path / "release-good", created_at=0.0).manifest.classes
    assert classes.names == ("barolo", "grignolino", "barbera")


@pytest.mark.parametrize("name", MODELS)
def test_the_samples_refuse_a_broken_twin(
    name: str, tmp_path: Path, edgefleet: CommandLine
) -> None:
    model = MODELS[name]()
    model.write(tmp_path)
    assert init(edgefleet, tmp_path, "good", name, *model.options).exit == 0
    (tmp_path / "release-good" / "model.onnx").write_bytes(model.broken)
    said = edgefleet("model", "inspect", str(tmp_path / "release-good"))
    assert said.exit == 0, "the twin has the same interface"
    broken = init(edgefleet, tmp_path, "broken", name, *model.options)
    if name == "masks":  # half of the pixels are each class, so an exchange leaves none right
        assert "The accuracy of the model on the samples is 0.0000." in broken.err
    assert (broken.exit, "golden_failed" in broken.err) == (1, True)
    assert not (tmp_path / "release-broken").exists()


def test_a_regressor_of_random_weights_is_called_what_it_is(
    tmp_path: Path, edgefleet: CommandLine
) -> None:
    diabetes().write(tmp_path)
    said = init(edgefleet, tmp_path, "broken", "energy")
    assert "The samples do not prove the model. Its mean error is 2." in said.err
    assert "if it always answered 134." in said.err


@pytest.mark.parametrize("bad", [b"", b"PK\x03\x04", b"{}"])
def test_samples_that_are_no_arrays_are_refused(
    bad: bytes, tmp_path: Path, edgefleet: CommandLine
) -> None:
    wine().write(tmp_path)
    (tmp_path / "samples.npz").write_bytes(bad)
    said = init(edgefleet, tmp_path, "good", "wine")
    assert (said.exit, "golden_mismatch" in said.err) == (2, True)


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"X": np.zeros((4, 13))}, "The samples have no right answers"),
        ({"X": np.zeros((4, 12)), "y": np.zeros(4, "i8")}, "(4, 12)"),
        ({"X": np.zeros((4, 13)), "y": np.zeros(3, "i8")}, "3"),
        ({"X": np.zeros((4, 13)), "z": np.zeros(4)}, "Call the right answers y"),
        ({"X": np.zeros((4, 13)), "y": np.array(["a", "b", "a", "b"])}, "--task"),
        ({"X": np.zeros((4, 13)), "y": np.array([0, 1, 2, 1])}, "if it always answered 1"),
    ],
)
def test_samples_that_do_not_fit_say_what_is_wrong(
    arrays: dict[str, np.ndarray], text: str, tmp_path: Path, edgefleet: CommandLine
) -> None:
    wine().write(tmp_path)
    np.savez(tmp_path / "samples.npz", **arrays)
    said = init(edgefleet, tmp_path, "good", "wine", *(["--task", "classification"] if "X" in arrays and len(arrays) == 1 else []))  # fmt: skip
    assert said.exit != 0
    assert text in said.err


def test_inspect_says_what_a_scikit_learn_export_is(tmp_path: Path, edgefleet: CommandLine) -> None:
    wine().write(tmp_path)
    said = edgefleet("model", "inspect", str(tmp_path / "good.onnx"), "--json")
    report = said.json
    assert report["class_scores"] == ["probabilities"]
    assert report["producer"].startswith("skl2onnx")
    assert [one["name"] for one in report["outputs"]] == ["label", "probabilities"]
    assert report["min_runtime"] == "1.22"


def write(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


def test_a_zipmap_is_refused_with_the_option_that_mends_it(
    tmp_path: Path, edgefleet: CommandLine
) -> None:
    inputs = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    model = LogisticRegression().fit(inputs, inputs[:, 0] > 0)
    said = edgefleet("model", "inspect", write(tmp_path / "m.onnx", exported(model, inputs, zipmap=True)))  # fmt: skip
    assert (said.exit, "options={'zipmap': False}" in said.err) == (2, True)


def test_a_setting_without_a_batch_is_refused_with_the_option_that_mends_it(
    tmp_path: Path, edgefleet: CommandLine
) -> None:
    node = helper.make_node("Mul", ["x", "rate"], ["y"])
    data = graph_bytes(
        [node],
        [tensor("x", TensorProto.FLOAT, "n", 4), tensor("rate", TensorProto.FLOAT)],
        [tensor("y", TensorProto.FLOAT, "n", 4)],
        {},
    )
    said = edgefleet("model", "inspect", write(tmp_path / "m.onnx", data))
    assert said.exit == 2
    assert "a single value, without a batch" in said.err
    assert "dynamic_axes" in said.err


def test_a_state_is_refused_with_the_option_that_mends_it(
    tmp_path: Path, edgefleet: CommandLine
) -> None:
    node = helper.make_node("ReduceSum", ["state", "axes"], ["sum"], keepdims=0)
    add = helper.make_node("Add", ["x", "sum"], ["y"])
    data = graph_bytes(
        [node, add],
        [tensor("x", TensorProto.FLOAT, "n", 4), tensor("state", TensorProto.FLOAT, 2, "n", 4)],
        [tensor("y", TensorProto.FLOAT, "n", 4)],
        {"axes": np.array([0])},
    )
    write(tmp_path / "good.onnx", data)
    np.savez(tmp_path / "samples.npz", **{"input.x": np.zeros((2, 4), "f4"),
             "input.state": np.zeros((2, 3, 4), "f4"), "truth.y": np.zeros((2, 4), "f4")})  # fmt: skip
    said = init(edgefleet, tmp_path, "good", "voice", "--task", "regression", "--max-batch", "8")
    assert said.exit != 0
    assert "batch_first=True" in said.err


def test_the_folder_of_another_release_is_not_overwritten(
    tmp_path: Path, edgefleet: CommandLine
) -> None:
    wine().write(tmp_path)
    assert init(edgefleet, tmp_path, "good", "wine").exit == 0
    before = (tmp_path / "release-good" / "golden.npz").read_bytes()
    assert init(edgefleet, tmp_path, "good", "wine").exit == 2
    assert (tmp_path / "release-good" / "golden.npz").read_bytes() == before


def test_a_file_of_external_weights_says_so(tmp_path: Path, edgefleet: CommandLine) -> None:
    wine().write(tmp_path)
    model = onnx.load(tmp_path / "good.onnx")
    node = model.graph.initializer.add()
    node.CopyFrom(onnx.numpy_helper.from_array(np.zeros(4000, np.float32), "big"))
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, size_threshold=10)
    said = edgefleet("model", "inspect", str(tmp_path / "m.onnx"))
    assert "weights in other files" in said.err
