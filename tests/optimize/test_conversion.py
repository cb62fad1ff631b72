"""ONNX files as TFLite files: the same answers, or the node that has no counterpart."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgefleet.base.errors import PublisherError
from edgefleet.optimize.cache import Cache
from edgefleet.optimize.conversion import convert as convert_module
from edgefleet.optimize.conversion import source as source_module
from edgefleet.optimize.conversion.convert import convert
from edgefleet.optimize.conversion.source import with_tflite
from edgefleet.optimize.evaluation_data import CalibrationData
from edgefleet.optimize.profiles import PROFILES
from edgefleet.optimize.source import read_source
from edgefleet.serving.model_file import inspect_model

SIZES = (3, 8, 8)
DRAWN = np.random.default_rng(4)


def weights(*shape: int) -> Any:
    return DRAWN.normal(0, 0.5, shape).astype(np.float32)


def written(
    path: Path, nodes: list[Any], made: list[Any], batch: Any = "batch", **arrays: Any
) -> Path:
    """A model with the input ``image`` and the output ``y``. ``made`` are the sizes of ``y``."""
    graph = helper.make_graph(
        nodes, "net",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, *SIZES])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, *made])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )  # fmt: skip
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path
    )
    return path


def node(kind: str, given: list[str], made: str, **values: Any) -> Any:
    return helper.make_node(kind, given, [made], made, **values)


def classifier(path: Path, batch: Any = "batch") -> Path:
    """Strided, depthwise and dilated convolutions, a residual sum, pools, and two dense layers."""
    nodes = [
        node("Conv", ["image", "w0", "b0"], "c0", pads=[1, 1, 1, 1]),
        node("Relu", ["c0"], "r0"),
        node("Conv", ["r0", "w1"], "c1", pads=[1, 1, 1, 1], group=8),
        node("BatchNormalization", ["c1", "scale", "shift", "mean", "variance"], "n1"),
        node("Clip", ["n1", "zero", "six"], "r1"),
        node("Add", ["r0", "r1"], "sum"),
        node("MaxPool", ["sum"], "p0", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["p0", "w2", "b2"], "c2", pads=[0, 1, 1, 0], strides=[2, 2]),
        node("Sigmoid", ["c2"], "s2"),
        node("Mul", ["s2", "channels"], "m2"),
        node("Flatten", ["m2"], "flat"),
        node("Gemm", ["flat", "w3", "b3"], "d3", transB=1),
        node("Relu", ["d3"], "r3"),
        node("MatMul", ["r3", "w4"], "d4"),
        node("Add", ["d4", "b4"], "a4"),
        node("Softmax", ["a4"], "y", axis=-1),
    ]
    return written(
        path, nodes, [5], batch,
        w0=weights(8, 3, 3, 3), b0=weights(8), w1=weights(8, 1, 3, 3), scale=weights(8),
        shift=weights(8), mean=weights(8), variance=np.abs(weights(8)) + 0.5,
        zero=np.float32(0), six=np.float32(6), w2=weights(4, 8, 2, 2), b2=weights(4),
        channels=weights(4, 1, 1), w3=weights(16, 16), b3=weights(16), w4=weights(16, 5),
        b4=weights(5),
    )  # fmt: skip


def cases(count: int = 8) -> CalibrationData:
    return CalibrationData(
        {"image": np.random.default_rng(1).normal(0, 1, (count, *SIZES)).astype(np.float32)}
    )


@pytest.mark.parametrize("batch", ["batch", 2])
def test_a_converted_file_has_the_interface_and_the_answers_of_the_onnx_file(
    tmp_path: Path, batch: Any
) -> None:
    model = classifier(tmp_path / "net.onnx", batch)
    convert(model, tmp_path / "net.tflite", cases())  # compares the answers
    before, after = inspect_model(model), inspect_model(tmp_path / "net.tflite")
    assert (after.inputs, after.outputs) == (before.inputs, before.outputs)
    assert after.runtimes == ("litert", "edgetpu")
    convert(model, tmp_path / "again.tflite", cases())
    assert (tmp_path / "again.tflite").read_bytes() == (tmp_path / "net.tflite").read_bytes()


@pytest.mark.parametrize(
    ("nodes", "sizes"),
    [
        ([node("Conv", ["image", "w"], "c", dilations=[2, 2]), node("Tanh", ["c"], "y")], [3, 4, 4]),
        ([node("GlobalAveragePool", ["image"], "p"), node("Flatten", ["p"], "y")], [3]),
        ([node("ReduceMean", ["image"], "y", axes=[2, 3], keepdims=0)], [3]),
        ([node("AveragePool", ["image"], "p", kernel_shape=[2, 2]), node("Reshape", ["p", "shape"], "y")], [7, 21]),
        ([node("Conv", ["image", "w"], "c"), node("Sub", ["c", "one"], "y")], [3, 6, 6]),
    ],
    ids=["dilated", "pooled", "mean", "reshaped", "image out"],
)  # fmt: skip
def test_operators_answer_as_in_onnx(nodes: list[Any], sizes: list[int], tmp_path: Path) -> None:
    model = written(
        tmp_path / "net.onnx", nodes, sizes,
        w=weights(3, 3, 3, 3), shape=np.array([0, 7, -1], np.int64), one=np.float32(1.5),
    )  # fmt: skip
    convert(model, tmp_path / "net.tflite", cases())
    assert inspect_model(tmp_path / "net.tflite").outputs == inspect_model(model).outputs


@pytest.mark.parametrize(
    ("nodes", "told"),
    [
        ([node("Sin", ["image"], "y")], "Sin 'y': TFLite has no operator"),
        ([node("Conv", ["image", "w"], "y", auto_pad="SAME_UPPER")], "auto_pad SAME_UPPER"),
        ([node("Softmax", ["image"], "y", axis=1)], "its axis is not the last one"),
        ([node("Reshape", ["image", "flat"], "y")], "the batch must stay first"),
        ([node("Clip", ["image", "", "six"], "y")], "its limits are not 0 and 6"),
        ([node("Identity", ["image"], "y")], "an output is an input"),
    ],
    ids=["operator", "padding", "axis", "batch", "limits", "nothing"],
)
def test_a_node_without_a_counterpart_is_named(nodes: list[Any], told: str, tmp_path: Path) -> None:
    model = written(
        tmp_path / "net.onnx", nodes, list(SIZES),
        w=weights(3, 3, 3, 3), flat=np.array([3, -1], np.int64), six=np.float32(6),
    )  # fmt: skip
    with pytest.raises(PublisherError, match=told) as caught:
        convert(model, tmp_path / "net.tflite", cases())
    assert (caught.value.code, caught.value.field) == ("model_unsupported", "model")
    assert not (tmp_path / "net.tflite").exists()


def test_a_profile_with_another_runtime_goes_on_without_a_conversion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PublisherError("model_unsupported", "Sin 'y': no.")

    monkeypatch.setattr(source_module, "run_child", refuse)
    sources = {
        "onnx": read_source(written(tmp_path / "net.onnx", [node("Sin", ["image"], "y")], [1]))
    }
    told: list[str] = []

    def tried(*names: str) -> Any:
        profiles = [PROFILES[name] for name in names]
        return with_tflite(sources, profiles, Cache(tmp_path), tmp_path, told.append)

    assert tried("generic_x86") is sources
    assert told == []  # nothing was tried
    assert tried("raspberry_pi", "generic_x86") is sources
    assert told == ["Sin 'y': no."]
    with pytest.raises(PublisherError, match="Sin 'y'"):
        tried("raspberry_pi", "coral_tpu")


def test_a_conversion_that_changes_answers_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = written(tmp_path / "net.onnx", [node("Tanh", ["image"], "y")], list(SIZES))
    other = written(tmp_path / "other.onnx", [node("Sigmoid", ["image"], "y")], list(SIZES))
    wrong = convert_module.converted(onnx.load(other))
    monkeypatch.setattr(convert_module, "converted", lambda _model: wrong)
    with pytest.raises(PublisherError, match="answers otherwise than the ONNX file: output 'y' by"):
        convert(model, tmp_path / "net.tflite", cases())
    assert not (tmp_path / "net.tflite").exists()
