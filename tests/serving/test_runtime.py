"""Loading: the manifest must match the model file."""

from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from edgefleet.base.errors import DeviceError, EdgefleetError
from edgefleet.protocol.release import TensorSpec
from edgefleet.serving.cpu_use import foreign_threads
from edgefleet.serving.loading import load_model
from edgefleet.serving.threads import thread_count
from support.tiny_models import classifier, pixels


def spec(name: str = "pixels", datatype: str = "FP32", *shape: int) -> TensorSpec:
    return TensorSpec(name=name, datatype=datatype, shape=shape or (-1, 64))  # type: ignore[arg-type] # one of the datatypes


@pytest.mark.parametrize(
    "inputs",
    [
        (spec("image"),),
        (spec("pixels", "FP16"),),
        (spec("pixels", "FP32", -1, 65),),
        (spec("pixels", "FP32", -1, 8, 8),),
        (spec(), spec("more")),
        (),
    ],
    ids=["name", "datatype", "size", "rank", "too many", "too few"],
)
def test_a_manifest_that_says_otherwise_is_refused(
    tmp_path: Path, inputs: tuple[TensorSpec, ...]
) -> None:
    model = classifier(tmp_path / "m.onnx")
    variant = replace(model.variant, inputs=inputs)
    with pytest.raises(EdgefleetError, match=r"model_unsupported \(variant.inputs\)"):
        load_model(model.path, variant)


def test_an_output_that_the_file_lacks_is_refused(tmp_path: Path) -> None:
    model = classifier(tmp_path / "m.onnx")
    variant = replace(model.variant, outputs=(spec("scores", "FP32", -1, 10),))
    with pytest.raises(EdgefleetError, match=r"model_unsupported \(variant.outputs\)"):
        load_model(model.path, variant)


def test_a_loaded_model_computes_what_numpy_does(tmp_path: Path) -> None:
    model = classifier(tmp_path / "m.onnx")
    loaded = load_model(model.path, model.variant).model
    (got,) = loaded.run({"pixels": pixels(3)}, ["probabilities"])
    np.testing.assert_allclose(got, model.probabilities(pixels(3)), rtol=1e-4)


def test_a_run_that_fails_is_a_typed_error(tmp_path: Path) -> None:
    model = classifier(tmp_path / "m.onnx")
    loaded = load_model(model.path, model.variant).model
    with pytest.raises(DeviceError, match="inference_failed"):
        loaded.run({"pixels": np.zeros((1, 63), np.float32)}, ["probabilities"])


def test_a_model_takes_no_more_threads_than_the_device_grants(tmp_path: Path) -> None:
    model = classifier(tmp_path / "m.onnx")
    load_model(model.path, model.variant)  # threads that the runtime starts once
    before = foreign_threads()
    kept = load_model(model.path, model.variant).model
    assert len(foreign_threads() - before) == thread_count() - 1
    kept.close()
