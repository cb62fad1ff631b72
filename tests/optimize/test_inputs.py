"""Models of other tools: MLflow folders and scikit-learn estimators."""

import pickle
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from sklearn.cluster import DBSCAN
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from edgefleet.base.errors import PublisherError
from edgefleet.base.ids import sha256_hex
from edgefleet.examples import FOLDER
from edgefleet.optimize.inputs.estimator import from_sklearn
from edgefleet.optimize.inputs.mlflow_folder import is_mlflow, read_mlflow

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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    made.mkdir()
    (made / "MLmodel").write_text(MLMODEL_TEXT)
    data = (FOLDER / "digits" / "release-2" / "fp32.onnx").read_bytes()
    (made / "model.onnx").write_bytes(data)
    return made


def test_an_mlflow_folder_gives_its_onnx_model_and_its_run(folder: Path) -> None:
    assert is_mlflow(folder)
    source = read_mlflow(folder)
    assert source.path == (folder / "model.onnx").resolve()
    assert source.facts.inputs[0].name == "pixels"
    assert source.parents == (sha256_hex(MLMODEL_TEXT.encode()),)
    assert source.lineage == {
        "mlflow_run_id": "5c37ed12cb5a4cd68ddeec596482db6f",
        "mlflow_model_uuid": "8f1a0c",
        "mlflow_version": "3.4.0",
        "mlflow_utc_time_created": "2026-09-21 14:13:20.587332",
    }


@pytest.mark.parametrize("flavour", ["sklearn", "xgboost", "pytorch"])
def test_a_folder_with_a_pickle_alone_is_refused(flavour: str, folder: Path) -> None:
    text = MLMODEL_TEXT.replace("  onnx:\n", f"  {flavour}:\n")
    (folder / "MLmodel").write_text(text)
    (folder / "model.onnx").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(PublisherError, match="and not onnx") as caught:
        read_mlflow(folder)
    assert caught.value.code == "model_is_pickle"
    assert "mlflow.onnx.log_model" in caught.value.hint


def test_a_pickle_under_the_name_of_an_onnx_file_is_refused(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(PublisherError) as caught:
        read_mlflow(folder)
    assert caught.value.code == "model_is_pickle"


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
