"""TFLite variants: what is in the files, and what they answer, beside the float model."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from edgefleet.base.errors import PublisherError
from edgefleet.optimize.edgetpu.coverage import coverage
from edgefleet.optimize.evaluation_data import CalibrationData
from edgefleet.optimize.recipe import (
    DynamicInt8,
    FixBatch,
    Half,
    Simplify,
    StaticInt8,
    Step,
    WeightInt8,
)
from edgefleet.optimize.tflite_steps import quantizer
from edgefleet.optimize.tflite_steps.graph import Operator, float_model, left_float, packed
from edgefleet.optimize.tflite_steps.technique import TfliteTechnique
from edgefleet.serving.model_file import inspect_model
from support.tflite_digits import Graph, accuracy, answers, digits, write_digits

INT8 = StaticInt8(activations="int8", integer_io=True)
CASES = 100


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("float") / "digits.tflite")


def calibration(count: int = CASES, name: str = "image") -> CalibrationData:
    return CalibrationData({name: digits().train[:count]})


def made(step: Step, model: Path, folder: Path, given: CalibrationData | None = None) -> Path:
    path = folder / f"{len(list(folder.iterdir()))}.tflite"
    TfliteTechnique().apply(step, model, calibration() if given is None else given, path)
    return path


def refused(step: Step, model: Path, folder: Path, given: CalibrationData) -> PublisherError:
    with pytest.raises(PublisherError) as caught:
        made(step, model, folder, given)
    assert not list(folder.iterdir())
    return caught.value


def ends(path: Path) -> list[tuple[str, tuple[int, ...]]]:
    facts = inspect_model(path)
    return [(one.name, one.shape) for one in (*facts.inputs, *facts.outputs)]


def types(path: Path) -> tuple[str, str]:
    interpreter = Interpreter(model_path=str(path))
    sides = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    return sides[0]["dtype"].__name__, sides[1]["dtype"].__name__


def weights(path: Path) -> dict[int, int]:
    """Bytes of the constants of rank 2 and more, by the type in the schema."""
    read = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    found: dict[int, int] = {}
    for tensor in read.subgraphs[0].tensors:
        data = read.buffers[tensor.buffer].data
        if data is not None and len(tensor.shape) > 1:
            found[tensor.type] = found.get(tensor.type, 0) + len(data)
    return found


FLOAT32, FLOAT16, WHOLE8 = (
    schema.TensorType.FLOAT32, schema.TensorType.FLOAT16, schema.TensorType.INT8,
)  # fmt: skip
PARAMETERS = 12 * 9 + 192 * 96 + 96 * 10  # of the convolution and of two dense layers


@pytest.mark.parametrize(
    ("step", "sides", "stored"),
    [
        (INT8, ("int8", "int8"), {WHOLE8: PARAMETERS}),
        (StaticInt8(activations="int8"), ("float32", "float32"), {WHOLE8: PARAMETERS}),
        (
            StaticInt8(activations="int16", integer_io=True),
            ("int16", "int16"),
            {WHOLE8: PARAMETERS},
        ),
        (DynamicInt8(), ("float32", "float32"), {WHOLE8: PARAMETERS}),
        (WeightInt8(), ("float32", "float32"), {WHOLE8: PARAMETERS}),
        (Half(), ("float32", "float32"), {FLOAT16: 2 * PARAMETERS}),
    ],
    ids=["int8 in and out", "int8 inside", "int16", "dynamic", "weights", "fp16"],
)
def test_a_variant_stores_and_takes_what_its_step_says(
    step: Step, sides: tuple[str, str], stored: dict[int, int], model: Path, tmp_path: Path
) -> None:
    variant = made(step, model, tmp_path)
    assert types(variant) == sides
    assert weights(variant) == stored
    assert ends(variant) == ends(model) == [("image", (-1, 8, 8, 1)), ("probabilities", (-1, 10))]
    assert weights(model) == {FLOAT32: 4 * PARAMETERS}
    assert accuracy(model) > 0.94
    assert accuracy(variant) >= accuracy(model) - 0.01
    assert made(step, model, tmp_path).read_bytes() == variant.read_bytes()


def test_a_full_integer_variant_computes_nothing_in_float(model: Path, tmp_path: Path) -> None:
    assert left_float(made(INT8, model, tmp_path).read_bytes()) == ()
    names = [one.name for one in left_float(model.read_bytes())]
    assert names == ["conv", "pool", "flat", "hidden", "scores", "probabilities"]


def test_a_fixed_batch_lets_every_operator_map_to_the_edge_tpu(model: Path, tmp_path: Path) -> None:
    assert coverage(made(INT8, model, tmp_path)).mapped == 0  # its batch is open
    fixed = made(FixBatch(), model, tmp_path)
    assert ends(fixed) == [("image", (1, 8, 8, 1)), ("probabilities", (1, 10))]
    np.testing.assert_array_equal(
        answers(fixed, digits().test[:3]), answers(model, digits().test[:3])
    )
    assert coverage(made(INT8, fixed, tmp_path)).text == "6 of 6 operators map to the Edge TPU."
    four = write_digits(tmp_path / "four.tflite", batch=4)
    read: Any = schema.ModelT.InitFromPackedBuf(four.read_bytes(), 0)
    read.subgraphs[0].tensors[0].shapeSignature = [-1, 8, 8, 1]
    four.write_bytes(packed(read))
    with pytest.raises(PublisherError, match="only an open batch can be fixed") as caught:
        TfliteTechnique().apply(FixBatch(), four, calibration(), tmp_path / "no.tflite")
    assert (caught.value.code, caught.value.field) == ("step_failed", "fix_batch")


@pytest.mark.parametrize(
    ("kept", "left"),
    [
        (("hidden",), [Operator("hidden", "FULLY_CONNECTED")]),
        (
            ("FULLY_CONNECTED",),
            [Operator("hidden", "FULLY_CONNECTED"), Operator("scores", "FULLY_CONNECTED")],
        ),
    ],
    ids=["one operator", "a type"],
)
def test_named_operators_stay_in_float(
    kept: tuple[str, ...], left: list[Operator], model: Path, tmp_path: Path
) -> None:
    step = StaticInt8(activations="int8", integer_io=True, keep_float=kept)
    assert list(left_float(made(step, model, tmp_path).read_bytes())) == left


def test_dynamic_int8_of_one_type_leaves_the_others(model: Path, tmp_path: Path) -> None:
    variant = made(DynamicInt8(operators=("FULLY_CONNECTED",)), model, tmp_path)
    assert weights(variant) == {FLOAT32: 4 * 108, WHOLE8: PARAMETERS - 108}


def test_weights_have_a_scale_for_each_channel_or_one(model: Path, tmp_path: Path) -> None:
    def scales(per_channel: bool) -> int:
        step = StaticInt8(activations="int8", per_channel=per_channel)
        read: Any = schema.ModelT.InitFromPackedBuf(made(step, model, tmp_path).read_bytes(), 0)
        tensors = {one.name.decode(): one for one in read.subgraphs[0].tensors}
        return len(tensors["conv/w"].quantization.scale)

    assert (scales(True), scales(False)) == (12, 1)


def test_the_order_of_the_cases_and_a_ragged_last_batch_change_no_byte(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    fixed = write_digits(tmp_path / "fixed.tflite", batch=4)
    images = digits().train[:10]  # two and a half batches of four
    one, other = (
        made(INT8, fixed, folder, CalibrationData({"image": given}))
        for given in (images, images[::-1])
    )
    assert one.read_bytes() == other.read_bytes()
    shorter = made(INT8, fixed, folder, CalibrationData({"image": images[:8]}))
    assert shorter.read_bytes() != one.read_bytes()  # so the last two cases counted
    assert types(one) == ("int8", "int8")


def test_a_file_without_a_signature_gets_one(tmp_path: Path) -> None:
    bare = write_digits(tmp_path / "bare.tflite", signature=False)
    found = float_model(bare.read_bytes())
    assert (found.signature, dict(found.inputs)) == ("serving_default", {"image": "image"})
    folder = tmp_path / "made"
    folder.mkdir()
    assert accuracy(made(INT8, bare, folder)) >= accuracy(bare) - 0.01


def test_weights_in_half_precision_are_quantised_as_well(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    half = made(Half(), model, folder)
    found = float_model(half.read_bytes())
    assert "DEQUANTIZE" not in {one.kind for one in found.operators}
    wide = folder / "wide.tflite"
    wide.write_bytes(found.data)
    images = digits().test[:20]
    np.testing.assert_array_equal(answers(wide, images), answers(half, images))
    assert weights(made(INT8, half, folder)) == {WHOLE8: PARAMETERS}


@pytest.mark.parametrize(
    ("given", "field", "words"),
    [
        ({"picture": (4, 8, 8, 1)}, "image", "There is no such array"),
        ({"image": (4, 8, 8, 1), "more": (4, 1)}, "more", "no such input"),
        ({"image": (4, 8, 8)}, "image", "shape"),
        ({"image": (4, 8, 9, 1)}, "image", "shape"),
        ({"image": (0, 8, 8, 1)}, "image", "no cases"),
    ],
)
def test_wrong_calibration_data_are_refused(
    given: dict[str, tuple[int, ...]], field: str, words: str, model: Path, tmp_path: Path
) -> None:
    data = CalibrationData({name: np.zeros(shape, np.float32) for name, shape in given.items()})
    error = refused(INT8, model, tmp_path, data)
    assert (error.code, error.field) == ("calibration_invalid", field)
    assert words in error.message


def test_calibration_data_that_are_not_numbers_are_refused(model: Path, tmp_path: Path) -> None:
    images = digits().train[:4].copy()
    images[2, 0, 0, 0] = np.nan
    error = refused(INT8, model, tmp_path, CalibrationData({"image": images}))
    assert (error.code, error.field) == ("calibration_invalid", "image")


@pytest.mark.parametrize(
    ("step", "field", "words"),
    [
        (StaticInt8(), "static_int8.activations", "TFLite has no uint8 activations"),
        (
            StaticInt8(activations="int8", calibration="entropy"),
            "static_int8.calibration",
            "no entropy calibration",
        ),
        (
            StaticInt8(activations="int8", weight_bits=7),
            "static_int8.weight_bits",
            "TFLite has no weights of 7 bits",
        ),
        (
            StaticInt8(activations="int8", keep_float=("sigmoid",)),
            "static_int8.keep_float",
            "no operator 'sigmoid'. Its operators are conv (CONV_2D), pool (MAX_POOL_2D)",
        ),
        (DynamicInt8(operators=("SOFTMAX",)), "dynamic_int8.operators", "SOFTMAX have no weights"),
        (Simplify(), "simplify", "TFLite has no step simplify"),
    ],
)
def test_a_step_that_tflite_has_not_is_refused(
    step: Step, field: str, words: str, model: Path, tmp_path: Path
) -> None:
    error = refused(step, model, tmp_path, calibration(4))
    assert (error.code, error.field) == ("step_failed", field)
    assert words in error.message


def test_a_file_that_is_quantised_or_damaged_is_refused(model: Path, tmp_path: Path) -> None:
    folder, empty = tmp_path / "made", tmp_path / "empty"
    folder.mkdir(), empty.mkdir()
    again = refused(INT8, made(INT8, model, folder), empty, calibration(4))
    assert "quantised already" in again.message
    for data in (b"", b"\x00\x00\x00\x00TFL3", b"PK" + bytes(40)):
        broken = folder / "broken.tflite"
        broken.write_bytes(data)
        assert refused(INT8, broken, empty, calibration(4)).code == "step_failed"


def test_the_words_of_the_tool_are_in_the_error(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> bytes:
        raise RuntimeError("no kernel\n for this")

    monkeypatch.setattr(quantizer, "quantised", fails)
    error = refused(INT8, model, tmp_path, calibration(4))
    assert (error.code, error.message) == (
        "step_failed",
        "ai-edge-quantizer failed: no kernel for this",
    )


def test_without_the_package_the_extra_is_named(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantizer, "PACKAGES", ("no_such_package",))
    error = refused(INT8, model, tmp_path, calibration(4))
    assert "edgefleet[optimize-tflite]" in error.hint


def test_an_operator_that_the_quantizer_cannot_do_is_reported(tmp_path: Path) -> None:
    graph = Graph(-1, ("x", (4,)))
    graph.dense("dense", np.eye(4, dtype=np.float32), np.zeros(4, np.float32))
    graph.unary("EXP", "exp", (4,))
    path = tmp_path / "exp.tflite"
    path.write_bytes(graph.finished("x"))
    data = CalibrationData({"x": np.linspace(-1, 1, 32, dtype=np.float32).reshape(8, 4)})
    folder = tmp_path / "made"
    folder.mkdir()
    variant = made(INT8, path, folder, data)
    assert left_float(variant.read_bytes()) == (Operator("exp_quantised", "EXP"),)


def test_the_versions_of_the_tools_are_known() -> None:
    found = TfliteTechnique().versions()
    assert set(found) == {"ai-edge-quantizer", "ai-edge-litert"}
    assert all(found.values())
