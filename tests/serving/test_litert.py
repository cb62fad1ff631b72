"""LiteRT: full-integer models answer as the interpreter does, and their files are read safely."""

import importlib.metadata
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace
from tritonclient import http as triton

from edgefleet.base.errors import DeviceError, EdgefleetError, OperatorError, PublisherError
from edgefleet.protocol.serving import ServedModel, ServedRelease
from edgefleet.serving.loading import load_model
from edgefleet.serving.model_file import inspect_model
from edgefleet.serving.runtime import named_runtime
from support import tiny_tflite
from support.serving_process import serving
from support.tiny_models import classifier as onnx_classifier


@pytest.mark.parametrize("datatype", ["INT8", "UINT8"])
def test_integers_pass_as_the_interpreter_has_them(tmp_path: Path, datatype: str) -> None:
    model = tiny_tflite.classifier(tmp_path / "m.tflite", inside=datatype, outside=datatype)
    loaded = load_model(model.path, model.variant).model
    for count in (1, 3, 4, 3):
        given = tiny_tflite.inputs(count, datatype)
        (made,) = loaded.run({"x": given}, ["y"])
        assert made.dtype == given.dtype
        np.testing.assert_array_equal(made, tiny_tflite.interpreted(model.path, given))


@pytest.mark.parametrize("datatype", ["INT8", "UINT8"])
def test_floats_are_converted_as_by_the_operators_of_the_runtime(
    tmp_path: Path, datatype: str
) -> None:
    """The reference has QUANTIZE and DEQUANTIZE inside of the file."""
    model = tiny_tflite.classifier(
        tmp_path / "m.tflite", inside=datatype, outside=datatype, manifest="FP32"
    )
    reference = tiny_tflite.classifier(tmp_path / "r.tflite", inside=datatype, outside="FP32")
    loaded = load_model(model.path, model.variant).model
    halves = ((np.arange(40).reshape(4, 10) - 20 + 0.5) * np.float32(0.05)).astype(np.float32)
    for given in (tiny_tflite.inputs(4, "FP32"), halves, 1e6 * tiny_tflite.inputs(2, "FP32")):
        (made,) = loaded.run({"x": given}, ["y"])
        np.testing.assert_array_equal(made, tiny_tflite.interpreted(reference.path, given))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_without_an_integer_is_refused_by_name(tmp_path: Path, value: float) -> None:
    model = tiny_tflite.classifier(tmp_path / "m.tflite", manifest="FP32")
    loaded = load_model(model.path, model.variant).model
    given = tiny_tflite.inputs(1, "FP32")
    given[0, 3] = value
    with pytest.raises(OperatorError, match=r"bad_request \(x\)"):
        loaded.run({"x": given}, ["y"])


def test_a_bound_run_and_one_after_a_failure_answer(tmp_path: Path) -> None:
    model = tiny_tflite.classifier(tmp_path / "m.tflite")
    loaded = load_model(model.path, model.variant).model
    given, made = tiny_tflite.inputs(2), np.zeros((2, tiny_tflite.CLASSES), np.int8)
    loaded.bind({"x": given}, {"y": made})()
    np.testing.assert_array_equal(made, tiny_tflite.interpreted(model.path, given))
    with pytest.raises(DeviceError, match="inference_failed"):
        loaded.run({"x": given[:, :9]}, ["y"])
    (again,) = loaded.run({"x": given}, ["y"])
    np.testing.assert_array_equal(again, made)


def test_a_worker_answers_as_the_interpreter(tmp_path: Path) -> None:
    """See test_litert_protocols.py for the serving process itself, and for each protocol."""
    model = tiny_tflite.classifier(tmp_path / "m.tflite")
    release = ServedRelease(
        release="1", variant=model.variant, quality=None, artifact_path=str(model.path)
    )
    with serving(tmp_path) as process:
        process.apply(ServedModel(model="tiny", confirmed=release, isolation="process"))
        given = tiny_tflite.inputs(3)
        with triton.InferenceServerClient(process.address) as client:
            tensor = triton.InferInput("x", [3, 10], "INT8").set_data_from_numpy(given)
            for _ in range(5):
                made = client.infer("tiny", [tensor]).as_numpy("y")
                np.testing.assert_array_equal(made, tiny_tflite.interpreted(model.path, given))
            (shown,) = client.get_model_metadata("tiny")["outputs"]
            assert shown["parameters"]["quantisation"] == tiny_tflite.scales(model.path)["y"]


def test_the_facts_of_a_file_are_read_without_the_runtime(tmp_path: Path) -> None:
    model = tiny_tflite.classifier(tmp_path / "m.tflite", manifest="FP32")
    facts = inspect_model(model.path)
    assert (facts.inputs, facts.outputs) == (model.variant.inputs, model.variant.outputs)
    raw = tiny_tflite.classifier(tmp_path / "m.tflite").variant
    assert facts.raw == (raw.inputs, raw.outputs)
    assert (facts.runtimes, facts.producer, facts.min_runtime) == (
        ("litert", "edgetpu"),
        "tiny",
        "",
    )
    plain = tiny_tflite.classifier(tmp_path / "p.tflite", outside="FP32", batch=1)
    facts = inspect_model(plain.path)
    assert facts.raw is None
    assert facts.inputs == plain.variant.inputs
    compiled = tiny_tflite.classifier(tmp_path / "c.tflite", custom="edgetpu-custom-op")
    assert inspect_model(compiled.path).runtimes == ("edgetpu",)
    unknown = tiny_tflite.classifier(tmp_path / "u.tflite", custom="mine")
    with pytest.raises(EdgefleetError, match=r"model_unsupported.*mine"):
        inspect_model(unknown.path)


def test_a_damaged_file_is_refused_and_never_read_beyond_its_end(tmp_path: Path) -> None:
    """Cut at each byte, and with random bytes changed: a typed error, or facts."""
    data = tiny_tflite.classifier(tmp_path / "m.tflite").path.read_bytes()
    chance = random.Random(5)
    damaged = [data[:end] for end in range(8, len(data), 3)]
    for _ in range(600):
        changed = bytearray(data)
        for _ in range(chance.randint(1, 4)):
            changed[chance.randrange(8, len(data))] = chance.choice((0, 1, 127, 128, 255))
        damaged.append(bytes(changed))
    path, codes = tmp_path / "x.tflite", Counter[str]()
    for bad in damaged:
        path.write_bytes(bad)
        try:
            inspect_model(path)
        except PublisherError as error:
            codes[error.code] += 1
    assert codes.total() > 200
    assert set(codes) == {"not_a_model", "model_unsupported"}


def test_a_manifest_that_says_otherwise_is_refused(tmp_path: Path) -> None:
    model = tiny_tflite.classifier(tmp_path / "m.tflite")
    (spec,) = model.variant.inputs
    for wrong in (
        replace(spec, name="z"),
        replace(spec, datatype="INT16"),
        replace(spec, shape=(-1, 11)),
    ):
        variant = replace(model.variant, inputs=(wrong,))
        with pytest.raises(EdgefleetError, match=r"model_unsupported \(variant.inputs\)"):
            load_model(model.path, variant)


def test_an_onnx_file_is_no_model_for_litert(tmp_path: Path) -> None:
    other = onnx_classifier(tmp_path / "m.onnx")
    variant = replace(other.variant, runtime="litert")
    with pytest.raises(EdgefleetError, match="not_a_model"):
        load_model(other.path, variant)


def test_the_version_is_reported() -> None:
    found = importlib.metadata.version("ai-edge-litert")
    assert named_runtime("litert").versions() == {"ai-edge-litert": found}


def test_without_an_accelerator_the_missing_part_is_named(tmp_path: Path) -> None:
    model = tiny_tflite.classifier(tmp_path / "m.tflite", runtime="edgetpu")
    with pytest.raises(DeviceError, match=r"runtime_missing.*libedgetpu\.so\.1"):
        load_model(model.path, model.variant)
    other = onnx_classifier(tmp_path / "m.onnx")
    with pytest.raises(DeviceError, match=r"runtime_missing.*TensorrtExecutionProvider"):
        load_model(other.path, replace(other.variant, runtime="tensorrt"))
