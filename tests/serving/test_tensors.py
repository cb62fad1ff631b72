"""Tensors keep their values on the wire."""

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgefleet.base.errors import DeviceError, OperatorError
from edgefleet.protocol.release import TensorSpec
from edgefleet.serving.binary_tensors import from_binary, to_binary
from edgefleet.serving.declared import DeclaredInputs
from edgefleet.serving.runtime import NUMPY_TYPES
from edgefleet.serving.tensors import InferRequest, InputTensor, read_inputs, read_raw, to_json

NUMERIC = [name for name in NUMPY_TYPES if name not in ("BYTES", "BF16")]  # BF16: test_bf16
SHAPES = arrays.array_shapes(min_dims=1, max_dims=4, max_side=5)


@given(st.data(), st.sampled_from(NUMERIC))
def test_numbers_survive_the_binary_form(data: st.DataObject, datatype: Any) -> None:
    array = data.draw(arrays.arrays(NUMPY_TYPES[datatype], SHAPES))
    back = from_binary("x", memoryview(to_binary(array)), datatype, array.shape)
    np.testing.assert_array_equal(back, array)


@given(arrays.arrays(np.dtype(object), SHAPES, elements=st.text()))
def test_texts_survive_the_binary_form(array: np.ndarray[Any, Any]) -> None:
    back = from_binary("x", memoryview(to_binary(array)), "BYTES", array.shape)
    assert back.tolist() == array.tolist()


@given(st.data(), st.sampled_from([name for name in NUMERIC if name != "FP16"]))
def test_numbers_survive_the_json_form(data: st.DataObject, datatype: Any) -> None:
    dtype = NUMPY_TYPES[datatype]
    elements = arrays.from_dtype(dtype, allow_nan=False, allow_infinity=False)
    array = data.draw(arrays.arrays(dtype, SHAPES, elements=elements))
    spec = TensorSpec(name="x", datatype=datatype, shape=(-1, *array.shape[1:]))
    said = InferRequest(
        inputs=(
            InputTensor(
                name="x",
                shape=array.shape,
                datatype=datatype,
                data=msgspec.Raw(msgspec.json.encode(to_json("x", array))),
            ),
        )
    )
    got = read_inputs(said, memoryview(b""), DeclaredInputs([spec], 5))["x"]
    assert got.dtype == array.dtype
    np.testing.assert_array_equal(got, array)


def test_an_array_that_is_not_in_row_order_is_sent_in_row_order() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3).T
    back = from_binary("x", memoryview(to_binary(array)), "FP32", (3, 2))
    np.testing.assert_array_equal(back, array)


def test_bytes_that_do_not_lie_on_a_word_are_copied_to_one_that_does() -> None:
    data = memoryview(b"x" + np.arange(4, dtype="<f8").tobytes())[1:]
    array = from_binary("x", data, "FP64", (4,))
    assert array.flags.aligned
    assert array.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\1\0\0",
        b"\1\0\0\0",
        b"\xff\xff\xff\xffab",
        b"\1\0\0\0a",
        b"\1\0\0\0a\1\0\0\0bX",
        b"\1\0\0\0\xff\1\0\0\0b",
    ],
)
def test_texts_that_do_not_add_up_are_refused(data: bytes) -> None:
    with pytest.raises(OperatorError, match="bad_request"):
        from_binary("x", memoryview(data), "BYTES", (2,))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_json_is_refused_for_numbers_that_it_lacks(value: float) -> None:
    with pytest.raises(DeviceError, match="not finite"):
        to_json("x", np.array([1.0, value]))


def test_finite_numbers_whose_sum_is_not_are_sent() -> None:
    assert to_json("x", np.array([1.7e308, 1.7e308])) == [1.7e308, 1.7e308]


def test_inputs_of_different_batch_sizes_are_refused() -> None:
    specs = [TensorSpec(name=name, datatype="INT8", shape=(-1, 1)) for name in "ab"]
    said = InferRequest(
        inputs=tuple(
            InputTensor(
                name=name,
                shape=(size, 1),
                datatype="INT8",
                data=msgspec.Raw(msgspec.json.encode([0] * size)),
            )
            for size, name in enumerate("ab", 1)
        )
    )
    with pytest.raises(OperatorError, match="the batch"):
        read_inputs(said, memoryview(b""), DeclaredInputs(specs, 5))


def test_a_missing_input_is_named() -> None:
    specs = [TensorSpec(name=name, datatype="INT8", shape=(-1, 1)) for name in "ab"]
    tensor = InputTensor(name="a", shape=(1, 1), datatype="INT8", data=msgspec.Raw(b"[0]"))
    with pytest.raises(OperatorError) as caught:
        read_inputs(InferRequest(inputs=(tensor,)), memoryview(b""), DeclaredInputs(specs, 5))
    assert caught.value.field == "b"


@pytest.mark.parametrize("shape", [(-1, -1), (2, 3), ()])
def test_a_raw_body_needs_a_model_with_one_fixed_input(shape: tuple[int, ...]) -> None:
    with pytest.raises(OperatorError, match="raw body"):
        read_raw(memoryview(b"\0" * 3), [TensorSpec(name="x", datatype="INT8", shape=shape)])
