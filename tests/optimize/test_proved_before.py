"""A model that every device would refuse is refused by the publisher's proof, with the cause."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgefleet.base.errors import EdgefleetError
from edgefleet.optimize.release_folder import BuiltRelease, build_release
from edgefleet.optimize.run_model import prove
from edgefleet.serving.runtime_versions import LOADS, FormatVersions, oldest_runtime
from support.task_models import graph_bytes, tensor

TOML = """model = "m"
release = "1"
task = "regression"
[golden]
file = "golden.npz"
min_accuracy = 0.0
min_agreement = 0.9
[compare]
absolute = 0.1
relative = 0.0
[[variant]]
profile = "generic_x86"
precision = "fp32"
file = "m.onnx"
"""
X = tensor("x", TensorProto.FLOAT, "n", 4)


def release(folder: Path, data: bytes, columns: int = 4) -> BuiltRelease:
    """A release of the model, whose golden set expects ``columns`` values."""
    (folder / "m.onnx").write_bytes(data)
    (folder / "release.toml").write_text(TOML)
    inputs = np.arange(12, dtype=np.float32).reshape(3, 4)
    wanted = np.resize(inputs, (3, columns)) if columns != 4 else inputs
    np.savez(folder / "golden.npz", **{"input.x": inputs, "output.y": wanted})
    return build_release(folder, created_at=0.0)


def proved(folder: Path, data: bytes, columns: int = 4) -> None:
    built = release(folder, data, columns)
    prove(built, built.manifest.variants[0])


def refused(folder: Path, data: bytes, columns: int = 4) -> EdgefleetError:
    with pytest.raises(EdgefleetError) as caught:
        proved(folder, data, columns)
    return caught.value


def identity(*, opset: int = 17, ir: int = 9) -> bytes:
    node = helper.make_node("Identity", ["x"], ["y"])
    return graph_bytes(
        [node], [X], [tensor("y", TensorProto.FLOAT, "n", 4)], {}, opset=opset, ir=ir
    )


def test_a_good_model_is_proved(tmp_path: Path) -> None:
    built = release(tmp_path, identity())
    result = prove(built, built.manifest.variants[0])
    assert (result.passed, result.accuracy, result.agreement) == (True, None, 1.0)
    assert result.runtime


def test_a_file_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    error = refused(tmp_path, identity(ir=onnx.IR_VERSION + 3))
    assert "IR version" in error.message or "ir_version" in error.message


def test_a_newer_operator_set_is_refused(tmp_path: Path) -> None:
    error = refused(tmp_path, identity(opset=onnx.defs.onnx_opset_version() + 3))
    assert "opset" in error.message.lower()


def test_a_reshape_to_one_batch_is_refused_with_its_batch(tmp_path: Path) -> None:
    nodes = [helper.make_node("Reshape", ["x", "three"], ["y"])]
    data = graph_bytes(nodes, [X], [tensor("y", TensorProto.FLOAT, "n", 4)], {"three": np.array([3, 4])})  # fmt: skip
    error = refused(tmp_path, data)
    assert "A batch of 3 is built into the graph." in error.message


def test_an_output_that_sums_over_the_batch_is_refused(tmp_path: Path) -> None:
    """The runtime sees it in the shapes of the graph, or only when the model runs."""
    nodes = [helper.make_node("ReduceSum", ["x", "zero"], ["y"], keepdims=1)]
    output, zero = tensor("y", TensorProto.FLOAT, "n", 4), {"zero": np.array([0])}
    error = refused(tmp_path, graph_bytes(nodes, [X], [output], zero))
    assert error.code == "model_unsupported"
    assert "FP32 [1, 4] in the model" in error.message

    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["batch"]),
        helper.make_node("Sub", ["batch", "batch"], ["axis"]),
        helper.make_node("ReduceSum", ["x", "axis"], ["y"], keepdims=1),
    ]
    error = refused(tmp_path, graph_bytes(nodes, [X], [output], zero))
    assert "For a batch of 8, output y has the shape [1, 4]" in error.message


def test_an_output_whose_declared_size_is_wrong_is_refused(tmp_path: Path) -> None:
    node = helper.make_node("Identity", ["x"], ["y"])
    data = graph_bytes([node], [X], [tensor("y", TensorProto.FLOAT, "n", 7)], {})
    assert "7" in refused(tmp_path, data, columns=7).message


def test_the_installed_runtime_loads_what_the_table_says(tmp_path: Path) -> None:
    newest = list(LOADS.values())[-1]
    usable = FormatVersions(min(newest.ir, onnx.IR_VERSION), min(newest.opset, onnx.defs.onnx_opset_version()), newest.ml_opset)  # fmt: skip
    built = release(tmp_path, identity(opset=usable.opset, ir=usable.ir))
    assert prove(built, built.manifest.variants[0]).passed


def test_the_oldest_runtime_is_found_by_each_version() -> None:
    assert oldest_runtime(FormatVersions(8, 13)) == next(iter(LOADS))
    assert oldest_runtime(FormatVersions(10, 22)) == "1.22"
    assert oldest_runtime(FormatVersions(11, 13)) == "1.23"
    assert oldest_runtime(FormatVersions(99, 13)) == ""
    assert [*LOADS.values()] == sorted(LOADS.values())
