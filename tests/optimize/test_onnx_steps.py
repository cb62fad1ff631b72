"""Steps that make ONNX files: what they make, that they repeat it, and the traps of their tools."""

import hashlib
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnxruntime.quantization import quantize_dynamic

from edgefleet.base.errors import PublisherError
from edgefleet.optimize.evaluation_data import CalibrationData
from edgefleet.optimize.onnx_steps import technique_of
from edgefleet.optimize.recipe import (
    DynamicInt8,
    Half,
    Prune,
    Simplify,
    StaticInt8,
    Step,
    WeightInt8,
)
from support.digits_cnn import digits, nodes_of, write_cnn

CASES = 50  # not a multiple of the batch of the calibration


@pytest.fixture(scope="module")
def cnn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cnn(tmp_path_factory.mktemp("cnn") / "model.onnx")


def calibration(cases: int = CASES, **other: Any) -> CalibrationData:
    return CalibrationData(other or {"image": digits().train_x[:cases]})


def made(step: Step, model: Path, path: Path, data: CalibrationData | None = None) -> Path:
    technique_of(step).apply(step, model, calibration() if data is None else data, path)
    return path


def scores(path: Path, images: NDArray[Any]) -> NDArray[Any]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(path, options)
    (found,) = session.run(["scores"], {"image": images})
    return found


def accuracy(path: Path) -> float:
    data = digits()
    return float(np.mean(scores(path, data.test_x).argmax(axis=1) == data.test_y))


def operators(path: Path) -> set[str]:
    return {node.op_type for node in nodes_of(path)}


STEPS: Mapping[str, Step] = {
    "minmax": StaticInt8(),
    "entropy": StaticInt8(calibration="entropy"),
    "percentile": StaticInt8(calibration="percentile"),
    "int8 activations": StaticInt8(activations="int8"),
    "int16 activations": StaticInt8(activations="int16"),
    "by tensor": StaticInt8(per_channel=False),
    "dynamic": DynamicInt8(),
    "dynamic, Gemm": DynamicInt8(operators=("Gemm", "MatMul")),
    "weights": WeightInt8(),
    "half": Half(),
    "simplify": Simplify(),
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS.keys())
def test_a_step_keeps_interface_and_accuracy(cnn: Path, tmp_path: Path, step: Step) -> None:
    path = made(step, cnn, tmp_path / "made.onnx")
    onnx.checker.check_model(path)
    graph = onnx.load(path).graph
    assert [
        (one.name, one.type.tensor_type.elem_type) for one in (*graph.input, *graph.output)
    ] == [
        ("image", onnx.TensorProto.FLOAT),
        ("scores", onnx.TensorProto.FLOAT),
    ]
    assert accuracy(cnn) > 0.94
    assert accuracy(path) > accuracy(cnn) - 0.015
    assert len(scores(path, digits().test_x[:3])) == 3  # the batch is still open


def test_integers_make_the_weights_four_times_smaller(cnn: Path, tmp_path: Path) -> None:
    def weights(path: Path) -> int:
        return sum(len(one.raw_data) for one in onnx.load(path).graph.initializer)

    for name, at_least in (("minmax", 3.4), ("weights", 3.4), ("half", 1.95), ("simplify", 0.99)):
        smaller = weights(cnn) / weights(made(STEPS[name], cnn, tmp_path / f"{name}.onnx"))
        assert smaller > at_least, name


def test_activations_have_the_wanted_type(cnn: Path, tmp_path: Path) -> None:
    wanted = {
        "minmax": onnx.TensorProto.UINT8,
        "int8 activations": onnx.TensorProto.INT8,
        "int16 activations": onnx.TensorProto.INT16,
    }
    for name, datatype in wanted.items():
        graph = onnx.load(made(STEPS[name], cnn, tmp_path / "made.onnx")).graph
        zeros = {one.name: one.data_type for one in graph.initializer}
        first = next(node for node in graph.node if node.op_type == "QuantizeLinear")
        assert zeros[first.input[2]] == datatype


def test_ranges_of_weights_are_by_channel_or_by_tensor(cnn: Path, tmp_path: Path) -> None:
    def scales(step: Step) -> tuple[int, ...]:
        graph = onnx.load(made(step, cnn, tmp_path / "made.onnx")).graph
        (found,) = (one for one in graph.initializer if one.name == "filters1_scale")
        return tuple(found.dims)

    assert scales(StaticInt8()) == (32,)
    assert scales(StaticInt8(per_channel=False)) in {(), (1,)}


def test_named_nodes_stay_in_float(cnn: Path, tmp_path: Path) -> None:
    def dequantised_inputs(path: Path) -> dict[str, bool]:
        nodes = nodes_of(path)
        makers = {name: node.op_type for node in nodes for name in node.output}
        return {
            node.name: makers.get(node.input[0]) == "DequantizeLinear"
            for node in nodes
            if node.op_type == "Conv"
        }

    whole = dequantised_inputs(made(StaticInt8(), cnn, tmp_path / "whole.onnx"))
    assert whole == {"conv_0": True, "conv_1": True}
    step = StaticInt8(keep_float=("conv_1",))
    kept = onnx.load(made(step, cnn, tmp_path / "kept.onnx")).graph
    floats = {one.name for one in kept.initializer if one.data_type == onnx.TensorProto.FLOAT}
    assert "filters1" in floats
    assert "filters0" not in floats
    with pytest.raises(PublisherError, match="no node 'conv_9'") as caught:
        made(StaticInt8(keep_float=("conv_9",)), cnn, tmp_path / "made.onnx")
    assert (caught.value.code, caught.value.field) == ("step_failed", "keep_float")


def test_shapes_that_an_exporter_noted_wrongly_do_not_matter(cnn: Path, tmp_path: Path) -> None:
    wrong = write_cnn(tmp_path / "wrong.onnx", noted_shapes=True)
    with pytest.raises(Exception, match="shape_inference failed"):
        quantize_dynamic(wrong, tmp_path / "tool.onnx")
    for name in ("dynamic", "minmax", "half", "simplify"):
        first = made(STEPS[name], wrong, tmp_path / "first.onnx")
        assert first.read_bytes() == made(STEPS[name], cnn, tmp_path / "second.onnx").read_bytes()


@pytest.mark.parametrize("method", ["minmax", "entropy", "percentile"])
def test_a_ragged_last_batch_counts(cnn: Path, tmp_path: Path, method: Any) -> None:
    images = digits().train_x[:33].copy()
    plain = made(
        StaticInt8(calibration=method), cnn, tmp_path / "a.onnx", calibration(image=images)
    )
    images[32] *= 4  # the only case of the last batch
    other = made(
        StaticInt8(calibration=method), cnn, tmp_path / "b.onnx", calibration(image=images)
    )
    assert plain.read_bytes() != other.read_bytes()


def test_a_model_with_a_fixed_batch_is_calibrated_with_full_ones(tmp_path: Path) -> None:
    fixed = write_cnn(tmp_path / "fixed.onnx", batch=4)
    path = made(StaticInt8(calibration="entropy"), fixed, tmp_path / "made.onnx", calibration(6))
    assert scores(path, digits().test_x[:4]).shape == (4, 10)


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS.keys())
def test_the_same_arguments_give_the_same_bytes(cnn: Path, tmp_path: Path, step: Step) -> None:
    first = made(step, cnn, tmp_path / "first.onnx")
    assert first.read_bytes() == made(step, cnn, tmp_path / "second.onnx").read_bytes()


@pytest.mark.long
@pytest.mark.parametrize("name", STEPS)
def test_another_process_makes_the_same_bytes(cnn: Path, tmp_path: Path, name: str) -> None:
    """With another order of sets: Python salts its hashes in each process."""
    np.save(tmp_path / "images.npy", calibration().inputs["image"])
    step = STEPS[name]
    here = made(step, cnn, tmp_path / "here.onnx")
    script = (
        "import sys, numpy, pathlib\n"
        "from edgefleet.optimize.recipe import *\n"
        "from edgefleet.optimize.onnx_steps import technique_of\n"
        "from edgefleet.optimize.evaluation_data import CalibrationData\n"
        f"step = {step!r}\n"
        "data = CalibrationData({'image': numpy.load(sys.argv[2])})\n"
        "technique_of(step).apply(step, pathlib.Path(sys.argv[1]), data, pathlib.Path(sys.argv[3]))\n"
    )
    there = tmp_path / "there.onnx"
    subprocess.run(
        [sys.executable, "-c", script, cnn, tmp_path / "images.npy", there],
        check=True, env={"PYTHONHASHSEED": "77"}, capture_output=True,
    )  # fmt: skip
    digests = {hashlib.sha256(path.read_bytes()).hexdigest() for path in (here, there)}
    assert len(digests) == 1


X = digits().train_x[:20]


def with_nan() -> NDArray[Any]:
    images = X.copy()
    images[7, 0, 3, 3] = np.nan
    return images


@pytest.mark.parametrize(
    ("data", "field", "told"),
    [
        ({"image": X[:0]}, "image", "There are no cases."),
        ({"picture": X}, "image", "There is no such array. The model has the inputs image"),
        ({"image": X, "more": X}, "more", "The model has no such input"),
        ({"image": X[:, 0]}, "image", r"A case has the shape \[8, 8\], the input \[1, 8, 8\]"),
        ({"image": X.astype(np.float64)}, "image", "float64, the input FP32"),
        ({"image": with_nan()}, "image", "Case 7 has a value that is not a finite number"),
    ],
    ids=["empty", "name", "unknown", "shape", "type", "nan"],
)
def test_bad_calibration_data_is_refused(
    cnn: Path, tmp_path: Path, data: dict[str, Any], field: str, told: str
) -> None:
    with pytest.raises(PublisherError, match=told) as caught:
        made(StaticInt8(), cnn, tmp_path / "made.onnx", CalibrationData(data))
    assert (caught.value.code, caught.value.field) == ("calibration_invalid", field)
    assert not (tmp_path / "made.onnx").exists()


def test_a_step_without_a_technique_is_refused() -> None:
    with pytest.raises(PublisherError, match="the step prune") as caught:
        technique_of(Prune(epochs=0))
    assert caught.value.code == "step_failed"


def test_a_tool_that_fails_is_quoted(cnn: Path, tmp_path: Path) -> None:
    with pytest.raises(PublisherError, match="Operator 'Relu' cannot be quantised dynamically"):
        made(DynamicInt8(operators=("Relu",)), cnn, tmp_path / "made.onnx")
    old = onnx.load(cnn)
    old.opset_import[0].version = 11
    onnx.save(old, tmp_path / "old.onnx")
    with pytest.raises(PublisherError, match="opset 11; weights by channel need 13"):
        made(WeightInt8(), tmp_path / "old.onnx", tmp_path / "made.onnx")
