"""The sensitivity ladder: the order of nodes by the error that their quantisation causes."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgefleet.optimize.evaluation_data import CalibrationData, EvaluationData
from edgefleet.optimize.ladder import (
    in_order,
    rungs,
    sensitivity,
    sqnr_db,
    worst_first,
)
from edgefleet.optimize.onnx_steps.weights import on_grid
from edgefleet.optimize.recipe import StaticInt8

RNG = np.random.default_rng(5)
SIZE = 24


def _chain(path: Path, planted: str, *, batch: str | int = "batch") -> Path:
    """Four linear layers. The weights of ``planted`` have one outlier in each channel, which only
    meets an input of zero: the outputs are as without it, and 8 bits lose the other weights."""
    weights = dict[str, np.ndarray]()
    for name in "abcd":
        weights[name] = (RNG.normal(size=(SIZE, SIZE)) / np.sqrt(SIZE)).astype(np.float32)
        weights[name][:, 0] = 0  # the first feature of each layer is zero
        if name == planted:
            weights[name][0] = 300
    nodes, last = [], "x"
    for name in "abcd":
        nodes += [
            helper.make_node("MatMul", [last, name], [f"{name}_made"], name=f"layer_{name}"),
            helper.make_node("Tanh", [f"{name}_made"], [f"{name}_out"], name=f"tanh_{name}"),
        ]
        last = f"{name}_out"
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, SIZE])
    made = helper.make_tensor_value_info(last, TensorProto.FLOAT, [batch, SIZE])
    graph = helper.make_graph(
        nodes, "chain", [given], [made],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, path)
    return path


def _data(count: int = 40) -> tuple[CalibrationData, EvaluationData]:
    values = RNG.normal(size=(2, count, SIZE)).astype(np.float32)
    values[:, :, 0] = 0
    return (
        CalibrationData({"x": values[0]}),
        EvaluationData("none", {"x": values[1]}, {}),
    )


@pytest.mark.parametrize("planted", ["a", "c", "d"])
def test_the_planted_sensitive_layer_comes_first(tmp_path: Path, planted: str) -> None:
    calibration, evaluation = _data()
    path = _chain(tmp_path / "m.onnx", planted)
    ordered = list(worst_first(path, StaticInt8(), calibration, evaluation))
    assert ordered[0] == f"layer_{planted}"
    assert sorted(ordered) == [f"layer_{name}" for name in "abcd"]
    quality = sensitivity(path, StaticInt8(), calibration, evaluation)
    assert quality[ordered[0]] < 15 < 25 < quality[ordered[1]]


def test_a_model_with_a_fixed_batch_and_a_ragged_last_one_is_ranked(tmp_path: Path) -> None:
    path = _chain(tmp_path / "m.onnx", "b", batch=7)
    ordered = list(worst_first(path, StaticInt8(), *_data(count=10)))
    assert ordered[0] == "layer_b"


def test_sixteen_bit_activations_lose_less_than_eight(tmp_path: Path) -> None:
    calibration, evaluation = _data()
    path = _chain(tmp_path / "m.onnx", "")
    eight = sensitivity(path, StaticInt8(), calibration, evaluation)
    sixteen = sensitivity(path, StaticInt8(activations="int16"), calibration, evaluation)
    assert all(sixteen[name] > eight[name] for name in eight)


def test_the_file_is_not_changed(tmp_path: Path) -> None:
    path = _chain(tmp_path / "m.onnx", "a")
    before = path.read_bytes()
    worst_first(path, StaticInt8(), *_data())
    assert path.read_bytes() == before


def test_one_scale_for_each_channel_is_finer_than_one_for_all() -> None:
    weight = np.array([[1.0, 0.5], [100.0, 50.0]], np.float32)
    half_a_step = np.array([[1], [100]]) / 127 / 2
    assert np.all(np.abs(on_grid(weight, 0, 127) - weight) <= half_a_step + 1e-6)
    assert on_grid(weight, None, 127)[0, 1] == pytest.approx(100 / 127, abs=1e-5)  # one step
    assert np.array_equal(on_grid(np.zeros((2, 2), np.float32), 0, 127), np.zeros((2, 2)))


def test_sqnr_is_the_ratio_of_powers_in_decibels() -> None:
    clean = np.array([1.0, -1.0])
    assert sqnr_db(clean, clean + 0.1) == pytest.approx(20)
    assert sqnr_db(clean, clean) == 200
    assert sqnr_db(clean, np.array([1.0, np.nan])) == float("-inf")
    assert sqnr_db(np.zeros(2), np.ones(2)) == float("-inf")


def test_names_are_ordered_by_rising_quality_and_kept_by_doubling() -> None:
    ordered = in_order({"a": 30.0, "b": 10.0, "c": 20.0, "d": 20.0, "e": 50.0})
    assert ordered == ("b", "c", "d", "a", "e")
    assert rungs(ordered) == ((), ("b",), ("b", "c"), ("b", "c", "d", "a"))
    assert rungs(()) == ((),)
