"""Loading: the manifest must match the model file."""

from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from edgefleet.base.errors import DeviceError, EdgefleetError
from edgefleet.protocol.release import TensorSpec
from edgefleet.serving import runtime
from edgefleet.serving.runtime import runtime_for, thread_count
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
        runtime_for(variant).load(model.path, variant)


def test_an_output_that_the_file_lacks_is_refused(tmp_path: Path) -> None:
    model = classifier(tmp_path / "m.onnx")
    variant = replace(model.variant, outputs=(spec("scores", "FP32", -1, 10),))
    with pytest.raises(EdgefleetError, match=r"model_unsupported \(variant.outputs\)"):
        runtime_for(variant).load(model.path, variant)


def test_a_loaded_model_is_warm_and_computes_what_numpy_does(tmp_path: Path) -> None:
    model = classifier(tmp_path / "m.onnx")
    loaded = runtime_for(model.variant).load(model.path, model.variant)
    assert loaded.run_us > 0
    (got,) = loaded.run({"pixels": pixels(3)}, ["probabilities"])
    np.testing.assert_allclose(got, model.probabilities(pixels(3)), rtol=1e-4)


def test_a_run_that_fails_is_a_typed_error(tmp_path: Path) -> None:
    model = classifier(tmp_path / "m.onnx")
    loaded = runtime_for(model.variant).load(model.path, model.variant)
    with pytest.raises(DeviceError, match="inference_failed"):
        loaded.run({"pixels": np.zeros((1, 63), np.float32)}, ["probabilities"])


@pytest.mark.parametrize(
    ("text", "cpus", "threads"),
    [
        ("max 100000", 8, 1),
        ("50000 100000", 8, 1),
        ("250000 100000", 8, 2),
        ("400000 100000", 2, 2),
        ("", 8, 1),
        (None, 8, 1),
    ],
)
def test_threads_follow_the_quota_and_never_the_number_of_cores(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str | None,
    cpus: int,
    threads: int,
) -> None:
    path = tmp_path / "cpu.max"
    if text is not None:
        path.write_text(text)
    monkeypatch.setattr(runtime, "_CPU_MAX", path)
    monkeypatch.setattr(runtime.os, "sched_getaffinity", lambda _: set(range(cpus)))
    assert thread_count() == threads


def test_a_model_takes_no_more_threads_than_the_device_grants(tmp_path: Path) -> None:
    model = classifier(tmp_path / "m.onnx")
    runtime_for(model.variant).load(
        model.path, model.variant
    )  # threads that the runtime starts once
    before = len(list(Path("/proc/self/task").iterdir()))
    loaded = runtime_for(model.variant).load(model.path, model.variant)
    assert len(list(Path("/proc/self/task").iterdir())) - before == thread_count() - 1
    assert loaded.run_us > 0
