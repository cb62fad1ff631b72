"""The content of a model file: operators, parameters, live activations, profiles that can run it."""

from pathlib import Path

import flatbuffers
import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from msgspec.structs import replace
from onnx import TensorProto, helper

from edgefleet.base.errors import PublisherError
from edgefleet.optimize.inspection.inspect import inspect_file
from edgefleet.optimize.inspection.tflite_operators import OPERATORS
from edgefleet.optimize.profiles import PROFILES
from support import tiny_tflite
from support.task_models import graph_bytes, tensor


def dense(path: Path, *, batch: int | str = "n") -> Path:
    """x[n, 4] -> MatMul -> h[n, 100] -> Relu -> r[n, 100] -> MatMul -> y[n, 2]."""
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "b"], ["y"]),
    ]
    weights = {"a": np.ones((4, 100), np.float32), "b": np.ones((100, 2), np.float32)}
    inputs = [tensor("x", TensorProto.FLOAT, batch, 4)]
    outputs = [tensor("y", TensorProto.FLOAT, batch, 2)]
    path.write_bytes(graph_bytes(nodes, inputs, outputs, weights))
    return path


def test_the_estimate_is_weights_and_what_is_live_at_one_operator(tmp_path: Path) -> None:
    found = inspect_file(dense(tmp_path / "m.onnx"), 3)
    assert found.parameters == 4 * 100 + 100 * 2
    assert found.memory.weights_bytes == 600 * 4
    assert (found.memory.peak_at, found.memory.activations_bytes) == ("Relu", 3 * 2 * 100 * 4)
    assert found.memory.total_bytes == 2_400 + 2_400
    assert [(one.operator, one.count, one.parameters) for one in found.operators] == [
        ("MatMul", 2, 600),
        ("Relu", 1, 0),
    ]
    assert found.operators[0].largest_output == (3, 100)
    assert [one.memory.batch for one in found.profiles] == [
        one.max_batch for one in PROFILES.values()
    ]


def test_a_fixed_batch_stays_and_each_profile_is_told(tmp_path: Path) -> None:
    found = inspect_file(dense(tmp_path / "m.onnx", batch=2), 3)
    assert found.memory.batch == 2
    by_name = {one.profile: one for one in found.profiles}
    assert "Its batch is 2: set max_batch = 2." in by_name["raspberry_pi"].notes


def test_a_profile_without_the_memory_cannot_run_it(tmp_path: Path) -> None:
    small = replace(PROFILES["generic_x86"], memory_limit_mib=1)
    fits = inspect_file(dense(tmp_path / "m.onnx"), 3, [small]).profiles
    assert fits[0].runs
    large = replace(small, max_batch=4_000)  # 4,000 cases of 800 live bytes are 3.05 MiB
    (fit,) = inspect_file(tmp_path / "m.onnx", 3, [large]).profiles
    assert fit.why_not == ("It needs about 4 MiB at batch 4000; the profile has 1 MiB.",)


def test_a_size_that_is_open_makes_the_estimate_a_lower_bound(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    shape = ("n", "words", 8)
    data = graph_bytes(
        nodes,
        [tensor("x", TensorProto.FLOAT, *shape)],
        [tensor("y", TensorProto.FLOAT, *shape)],
        {},
    )
    (tmp_path / "m.onnx").write_bytes(data)
    memory = inspect_file(tmp_path / "m.onnx", 2).memory
    assert (memory.unknown_tensors, memory.activations_bytes) == (2, 2 * 2 * 8 * 4)


def test_dequantised_weights_are_not_counted_as_activations(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "scale"], ["w"]),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    weights = {"q": np.ones((64, 32), np.int8), "scale": np.array(0.5, np.float32)}
    ends = [tensor("x", TensorProto.FLOAT, "n", 64)], [tensor("y", TensorProto.FLOAT, "n", 32)]
    (tmp_path / "m.onnx").write_bytes(graph_bytes(nodes, *ends, weights))
    found = inspect_file(tmp_path / "m.onnx")
    assert (found.precision, found.weights_bytes) == ("int8", {"INT8": 2048, "FP32": 4})
    assert found.memory.activations_bytes == (64 + 32) * 4


@pytest.mark.parametrize(
    ("inside", "edge", "why"),
    [
        ("INT8", "INT8", ()),
        ("INT8", "FP32", ()),  # the CPU converts inputs and outputs
    ],
)
def test_an_integer_tflite_file_fits_the_edge_tpu(
    inside: str, edge: str, why: tuple[str, ...], tmp_path: Path
) -> None:
    made = tiny_tflite.classifier(tmp_path / "m.tflite", inside=inside, outside=edge)
    found = inspect_file(made.path, 4)
    by_name = {one.profile: one for one in found.profiles}
    assert by_name["coral_tpu"].why_not == why
    assert by_name["jetson_nano"].why_not == (
        "The profile runs tensorrt or onnx; the file is for litert or edgetpu.",
    )
    assert (found.parameters, found.precision, found.memory.batch) == (44, "int8", 4)
    assert [one.operator for one in found.operators if one.parameters] == ["FULLY_CONNECTED"]


def test_a_float_inside_of_a_tflite_file_keeps_it_off_the_edge_tpu(tmp_path: Path) -> None:
    made = tiny_tflite.classifier(tmp_path / "m.tflite", outside="FP32")
    model = schema.ModelT.InitFromPackedBuf(made.path.read_bytes())
    for one in model.subgraphs[0].tensors:
        if model.buffers[one.buffer].data is None:
            one.type = schema.TensorType.FLOAT32
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    (tmp_path / "float.tflite").write_bytes(builder.Output())
    found = inspect_file(tmp_path / "float.tflite")
    coral = next(one for one in found.profiles if one.profile == "coral_tpu")
    assert coral.why_not == (
        "The Edge TPU computes with integers only; 2 inner tensors are floats.",
    )


def test_operator_names_are_those_of_the_schema() -> None:
    names = {
        number: name
        for name, number in vars(schema.BuiltinOperator).items()
        if not name.startswith("_")
    }
    assert [names[number] for number in range(len(OPERATORS))] == list(OPERATORS)


def test_a_damaged_tflite_file_is_refused_or_read_but_never_crashes(tmp_path: Path) -> None:
    data = tiny_tflite.classifier(tmp_path / "m.tflite").path.read_bytes()
    refused = 0
    rng = np.random.default_rng(3)
    for _ in range(200):
        bad = bytearray(data)
        bad[int(rng.integers(8, len(bad)))] = int(rng.integers(256))
        (tmp_path / "bad.tflite").write_bytes(bad)
        try:
            inspect_file(tmp_path / "bad.tflite")
        except PublisherError:
            refused += 1
    assert refused > 20


def test_an_onnx_file_whose_shapes_contradict_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "a"], ["y"])]
    ends = [tensor("x", TensorProto.FLOAT, "n", 4)], [tensor("y", TensorProto.FLOAT, "n", 2)]
    data = graph_bytes(nodes, *ends, {"a": np.ones((5, 2), np.float32)})
    onnx.checker.check_model(onnx.ModelProto.FromString(data))
    (tmp_path / "m.onnx").write_bytes(data)
    found = inspect_file(tmp_path / "m.onnx")  # the inference leaves such a tensor out
    assert found.memory.activations_bytes == (4 + 2) * 4
