"""Models of other tools: MLflow folders, scikit-learn estimators, formats and files of weights."""

import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from sklearn.cluster import DBSCAN
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from edgefleet.base.errors import PublisherError
from edgefleet.base.ids import sha256_hex
from edgefleet.examples import FOLDER
from edgefleet.optimize.cache import Cache
from edgefleet.optimize.inputs.conversion import Converter
from edgefleet.optimize.inputs.estimator import from_sklearn
from edgefleet.optimize.inputs.keras_file import check_config
from edgefleet.optimize.inputs.mlflow_folder import read_mlflow
from edgefleet.optimize.inputs.model_format import format_of
from edgefleet.optimize.inputs.read_models import ModelReader
from edgefleet.optimize.source_model import SourceModel
from support.digits_cnn import write_cnn

# As mlflow.onnx.save_model of 3.x writes it.
MLMODEL_TEXT = """\
artifact_path: model
env_vars: null
flavors:
  onnx:
    code: null
    data: model.onnx
    onnx_version: 1.19.0
    providers:
    - CUDAExecutionProvider
    - CPUExecutionProvider
  python_function:
    data: model.onnx
    env:
      conda: conda.yaml
      virtualenv: python_env.yaml
    loader_module: mlflow.onnx
mlflow_version: 3.4.0
model_uuid: 8f1a0c
run_id: 5c37ed12cb5a4cd68ddeec596482db6f
signature:
  inputs: '[{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 64]}}]'
utc_time_created: '2026-09-21 14:13:20.587332'
"""


def read(*models: Path | str) -> list[SourceModel]:
    """Read models, with a work folder beside the first."""
    work = Path(models[0]).parent / "work"
    work.mkdir()
    return ModelReader(work, Converter(Cache(work / "cache"))).read(models)


def refused(*models: Path | str) -> PublisherError:
    with pytest.raises(PublisherError) as caught:
        read(*models)
    return caught.value


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    made.mkdir()
    (made / "MLmodel").write_text(MLMODEL_TEXT)
    data = (FOLDER / "digits" / "release-2" / "fp32.onnx").read_bytes()
    (made / "model.onnx").write_bytes(data)
    return made


def test_an_mlflow_folder_gives_its_onnx_model_and_its_run(folder: Path) -> None:
    (source,) = read(folder)
    assert source.path == (folder / "model.onnx").resolve()
    assert source.facts.inputs[0].name == "pixels"
    assert source.parents == (sha256_hex(MLMODEL_TEXT.encode()),)
    assert source.lineage == {
        "mlflow_run_id": "5c37ed12cb5a4cd68ddeec596482db6f",
        "mlflow_model_uuid": "8f1a0c",
        "mlflow_version": "3.4.0",
        "mlflow_utc_time_created": "2026-09-21 14:13:20.587332",
        "mlflow_flavour": "onnx",
    }


@pytest.mark.parametrize("flavour", ["sklearn", "lightgbm", "pytorch"])
def test_a_folder_with_a_pickle_alone_is_refused(flavour: str, folder: Path) -> None:
    text = MLMODEL_TEXT.replace("  onnx:\n", f"  {flavour}:\n").replace("model.onnx", "model.pkl")
    (folder / "MLmodel").write_text(text)
    (folder / "model.pkl").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(PublisherError, match="none with a file that edgefleet reads") as caught:
        read_mlflow(folder)
    assert caught.value.code == "model_is_pickle"
    assert "mlflow.onnx.log_model" in caught.value.hint


def test_a_pickle_under_the_name_of_an_onnx_file_is_refused(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(pickle.dumps({"a": 1}))
    assert refused(folder).code == "model_is_pickle"


@pytest.mark.parametrize("name", ["../model.onnx", "/etc/hostname"])
def test_a_file_outside_of_the_folder_is_refused(name: str, folder: Path) -> None:
    (folder / "model.onnx").rename(folder.parent / "model.onnx")
    (folder / "MLmodel").write_text(MLMODEL_TEXT.replace("data: model.onnx", f"data: {name}"))
    with pytest.raises(PublisherError, match="outside of the MLflow folder") as caught:
        read_mlflow(folder)
    assert caught.value.code == "model_unsupported"


@pytest.mark.parametrize("data", [b"\xff\xfe", b"", b"flavors: {onnx: {data: x}}\n"])
def test_an_mlmodel_that_cannot_be_read_is_refused(data: bytes, folder: Path) -> None:
    (folder / "MLmodel").write_bytes(data)
    with pytest.raises(PublisherError) as caught:
        read_mlflow(folder)
    assert caught.value.code in {"not_a_model", "model_unsupported"}


def test_a_scikit_learn_pipeline_answers_as_onnx_as_it_did(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    inputs = rng.normal(size=(200, 5)).astype(np.float32)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(inputs, inputs[:, 0] > 0)
    source = from_sklearn(model, inputs, tmp_path / "m.onnx")
    assert source.facts.inputs[0].shape == (-1, 5)
    session = onnxruntime.InferenceSession(source.path)
    name = source.facts.inputs[0].name
    made = session.run(["probabilities"], {name: inputs})[0]
    assert np.abs(made - model.predict_proba(inputs)).max() < 1e-5


def test_an_estimator_without_a_converter_is_refused(tmp_path: Path) -> None:
    inputs = np.zeros((8, 3), np.float32)
    with pytest.raises(PublisherError, match="skl2onnx cannot convert DBSCAN") as caught:
        from_sklearn(DBSCAN().fit(inputs), inputs, tmp_path / "m.onnx")
    assert caught.value.code == "model_unsupported"
    with pytest.raises(PublisherError, match="skl2onnx cannot convert LogisticRegression"):
        from_sklearn(LogisticRegression(), inputs, tmp_path / "m.onnx")


def with_weights_beside(folder: Path) -> Path:
    """A model with its weights in ``weights.bin``, as MLflow and PyTorch write larger ones."""
    write_cnn(folder / "whole.onnx")
    onnx.save(
        onnx.load(folder / "whole.onnx"), folder / "cnn.onnx", save_as_external_data=True,
        location="weights.bin", size_threshold=0,
    )  # fmt: skip
    return folder / "cnn.onnx"


def answers(path: Path) -> Any:
    session = onnxruntime.InferenceSession(path)
    images = np.random.default_rng(1).uniform(size=(3, 1, 8, 8)).astype(np.float32)
    return session.run(None, {session.get_inputs()[0].name: images})[0]


def test_weights_in_files_beside_the_model_are_brought_into_it(tmp_path: Path) -> None:
    (source,) = read(with_weights_beside(tmp_path))
    assert source.path.parent != tmp_path
    assert source.parents == (sha256_hex((tmp_path / "cnn.onnx").read_bytes()),)
    assert source.path.stat().st_size > (tmp_path / "weights.bin").stat().st_size
    assert np.array_equal(answers(source.path), answers(tmp_path / "whole.onnx"))


def _moved(path: Path, location: str) -> None:
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(model.SerializeToString())


@pytest.mark.parametrize("place", ["above", "absolute", "symlink", "folder", "hard link", "short",
                                   "missing", "fifo"])  # fmt: skip
def test_weights_outside_of_the_folder_are_refused(place: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    path = with_weights_beside(folder)
    weights, outside = folder / "weights.bin", tmp_path / "outside.bin"
    outside.write_bytes(weights.read_bytes())
    match place:
        case "above":
            _moved(path, "../outside.bin")
        case "absolute":
            _moved(path, str(outside))
        case "symlink":
            weights.unlink()
            weights.symlink_to(outside)
        case "folder":
            (folder / "sub").symlink_to(tmp_path)
            _moved(path, "sub/outside.bin")
        case "hard link":
            weights.unlink()
            os.link(outside, weights)
        case "short":
            os.truncate(weights, 100)
        case "fifo":
            weights.unlink()
            os.mkfifo(weights)
        case _:
            weights.unlink()
    told = {
        "above": "outside of the folder", "absolute": "outside of the folder",
        "symlink": "is a link", "folder": "is a link", "hard link": "hard links",
        "short": "has 100 bytes", "fifo": "not a plain file", "missing": "cannot be read",
    }  # fmt: skip
    error = refused(path)
    assert (error.code, error.field) == ("model_unsupported", "external_data")
    assert told[place] in error.message


def keras_file(path: Path, *layers: dict[str, Any]) -> Path:
    """A file in the format .keras, without weights."""
    config = {
        "module": "keras", "class_name": "Sequential", "registered_name": None,
        "config": {"name": "m", "layers": list(layers)},
    }  # fmt: skip
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("metadata.json", "{}")
        archive.writestr("model.weights.h5", b"")
    return path


DENSE = {"module": "keras.layers", "class_name": "Dense", "registered_name": None, "config": {}}


@pytest.mark.parametrize(
    ("layer", "told"),
    [
        ({**DENSE, "class_name": "Lambda"}, "a layer Lambda, which is code in the file"),
        ({**DENSE, "config": {"activation": {"class_name": "__lambda__"}}}, "a layer __lambda__"),
        ({**DENSE, "class_name": "TFSMLayer"}, "a layer TFSMLayer"),
        ({**DENSE, "module": "os", "class_name": "function"}, "uses function of os"),
        ({**DENSE, "module": "keras.src.utils", "class_name": "get_file"}, "uses get_file"),
        ({**DENSE, "class_name": "Mine", "registered_name": "my>Mine"}, "uses my>Mine"),
    ],
)
def test_a_keras_model_with_code_is_refused(
    layer: dict[str, Any], told: str, tmp_path: Path
) -> None:
    error = refused(keras_file(tmp_path / "m.keras", DENSE, layer))
    assert (error.code, error.field) == ("model_unsupported", "model")
    assert told in error.message
    assert "format='onnx'" in error.hint


def test_layers_of_keras_are_no_code() -> None:
    check_config(json.dumps({**DENSE, "config": {"activation": "relu"}}), "m.keras")
    functional = {"module": "keras.src.models.functional", "class_name": "Functional",
                  "registered_name": "Functional", "config": {"layers": [DENSE]}}  # fmt: skip
    check_config(json.dumps(functional), "m.keras")


def test_formats_are_found_by_content(tmp_path: Path) -> None:
    heads = {
        "lightgbm": b"tree\nversion=v4\nnum_class=1\n",
        "xgboost": b'{"learner":{"attributes":{}}}',
        "hdf5": b"\x89HDF\r\n\x1a\n",
        "file": pickle.dumps({"a": 1}),
    }
    for wanted, head in heads.items():
        (tmp_path / wanted).write_bytes(head)
        assert format_of(tmp_path / wanted) == wanted
    (tmp_path / "ubj").write_bytes(b"{L\0\0\0\0\0\0\0\x07learner{L")
    assert format_of(tmp_path / "ubj") == "xgboost"
    assert format_of(keras_file(tmp_path / "k", DENSE)) == "keras"
    (tmp_path / "old").write_bytes(b"binf" + b"\0" * 60)
    with pytest.raises(PublisherError, match="old binary format of XGBoost"):
        format_of(tmp_path / "old")
    with pytest.raises(PublisherError, match="is a folder, and neither"):
        format_of(tmp_path)


def test_a_model_over_the_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "large.onnx"
    with path.open("wb") as file:
        file.truncate(1 << 31)
    error = refused(path)
    assert error.code == "model_unsupported"
    assert "2147483648 bytes" in error.message
