"""Integer weights that keep the answers: 7 bits against saturation, and biases without a shift."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgefleet.optimize.evaluation_data import CalibrationData
from edgefleet.optimize.onnx_steps import technique_of
from edgefleet.optimize.onnx_steps.bias_correction import correct_biases
from edgefleet.optimize.recipe import Recipe, StaticInt8

RNG = np.random.default_rng(3)
CASES = 32


def model(
    nodes: Iterable[onnx.NodeProto], weights: Mapping[str, NDArray[Any]], shape: Sequence[int]
) -> onnx.ModelProto:
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *shape])
    sizes = ["batch", *(f"size{place}" for place in range(len(shape)))]
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, sizes)
    constants = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "layers", [given], [made], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def answers(one: onnx.ModelProto, x: NDArray[Any]) -> NDArray[Any]:
    session = onnxruntime.InferenceSession(
        one.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, {"x": x})
    return found


def normal(*shape: int) -> NDArray[Any]:
    return RNG.normal(size=shape).astype(np.float32)


LAYERS: Mapping[str, tuple[onnx.NodeProto, Mapping[str, NDArray[Any]], Sequence[int]]] = {
    "depthwise": (
        helper.make_node("Conv", ["x", "w", "b"], ["y"], "layer", group=8),
        {"w": normal(8, 1, 3, 3), "b": normal(8)}, (8, 6, 6),
    ),
    "in two groups, no bias": (
        helper.make_node("Conv", ["x", "w"], ["y"], "layer", group=2),
        {"w": normal(6, 4, 3, 3)}, (8, 6, 6),
    ),
    "Gemm": (
        helper.make_node("Gemm", ["x", "w", "b"], ["y"], "layer"),
        {"w": normal(8, 5), "b": normal(5)}, (8,),
    ),
    "Gemm, turned": (
        helper.make_node("Gemm", ["x", "w", "b"], ["y"], "layer", transB=1),
        {"w": normal(5, 8), "b": normal(5)}, (8,),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_the_bias_takes_back_the_shift_of_rounded_weights(name: str) -> None:
    node, weights, shape = LAYERS[name]
    whole = model([node], weights, shape)
    # Alike over the places of a channel, so that the mean of each window is that of the channel.
    x = np.abs(normal(CASES, 8, *(1 for _ in shape[1:]))) + np.zeros(shape, np.float32)
    wanted = answers(whole, x).reshape(CASES, weights["w"].shape[-1 if name == "Gemm" else 0], -1)

    def shift(one: onnx.ModelProto) -> float:
        found = answers(one, x).reshape(wanted.shape)
        return float(np.abs((found - wanted).mean(axis=(0, 2))).max())

    step = StaticInt8(weight_bits=7)
    correct_biases(whole, step, [{"x": x[:20]}, {"x": x[20:]}])  # a ragged batch counts by case
    assert shift(whole) < 1e-4
    constants = {one.name: numpy_helper.to_array(one) for one in whole.graph.initializer}
    assert set(constants) == {"w", "b" if "b" in weights else "w/bias"}
    plain = {"w": constants["w"], "b": weights.get("b", np.zeros(len(constants["w"]), np.float32))}
    node = onnx.NodeProto.FromString(node.SerializeToString())
    node.input[:] = ["x", "w", "b"]
    assert shift(model([node], plain, shape)) > 3e-3  # without the correction


def test_a_weight_of_two_layers_gets_a_bias_for_each() -> None:
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["middle"], "first"),
        helper.make_node("Gemm", ["middle", "w", "b"], ["y"], "second"),
    ]
    whole = model(nodes, {"w": normal(8, 8), "b": normal(8)}, (8,))
    x = np.abs(normal(CASES, 8))
    wanted = answers(whole, x).mean(axis=0)
    correct_biases(whole, StaticInt8(weight_bits=7), [{"x": x}])
    assert {one.name for one in whole.graph.initializer} == {"w/0", "w/1", "b/0", "b/1"}
    assert answers(whole, x).mean(axis=0) == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("bits", [7, 8])
def test_the_correction_keeps_the_integers_of_the_weights(tmp_path: Path, bits: Any) -> None:
    node, weights, shape = LAYERS["depthwise"]
    onnx.save(model([node], weights, shape), tmp_path / "float.onnx")
    data = CalibrationData({"x": np.abs(normal(CASES, *shape))})

    def integers(name: str, step: StaticInt8) -> NDArray[Any]:
        path = tmp_path / f"{name}.onnx"
        technique_of(step).apply(step, tmp_path / "float.onnx", data, path)
        graph = onnx.load(path).graph
        (found,) = (numpy_helper.to_array(one) for one in graph.initializer if len(one.dims) == 4)
        return found

    plain = integers("plain", StaticInt8(weight_bits=bits, correct_bias=False))
    assert np.array_equal(integers("corrected", StaticInt8(weight_bits=bits)), plain)
    assert np.abs(plain.astype(int)).max() == (64 if bits == 7 else 127)


def test_weights_of_7_bits_are_exact_on_every_cpu(tmp_path: Path) -> None:
    """With 8 bits a CPU without VNNI answers about half: two products do not fit into 16 bits."""
    weights = {"w": np.full((8, 16, 1, 1), 0.5, np.float32)}
    whole = model([helper.make_node("Conv", ["x", "w"], ["y"], "layer")], weights, (16, 4, 4))
    onnx.save(whole, tmp_path / "float.onnx")
    x = np.ones((4, 16, 4, 4), np.float32)
    step = StaticInt8(weight_bits=7)
    path = tmp_path / "made.onnx"
    technique_of(step).apply(step, tmp_path / "float.onnx", CalibrationData({"x": x}), path)
    assert answers(onnx.load(path), x) == pytest.approx(answers(whole, x), rel=0.02)


def test_a_recipe_says_that_weights_have_7_bits() -> None:
    recipe = Recipe(runtime="onnx", steps=(StaticInt8(weight_bits=7, correct_bias=False),))
    assert recipe.name == "onnx static_int8(7-bit weights, no correct_bias)"
