"""Requests and answers of Open Inference Protocol v2."""

import json
import struct

import numpy as np
import pytest

from edgefleet.base.errors import EdgefleetError
from edgefleet.client.inference.client import server_url
from edgefleet.client.inference.model_info import ModelInfo, TensorInfo, error_of_answer
from edgefleet.client.inference.tensors import (
    NUMPY_TYPES,
    decode_answer,
    encode_request,
    fit,
    sample_tensors,
)

X = TensorInfo(name="x", datatype="FP32", shape=(-1, 2, 3))


@pytest.mark.parametrize("shape", [(1, 2, 3), (4, 2, 3), (2, 3), (6,), (12,)])
def test_an_array_is_folded_into_the_input(shape: tuple[int, ...]) -> None:
    values = np.arange(np.prod(shape), dtype=np.int64).reshape(shape)
    made = fit(values, X)
    assert made.dtype == np.float32
    assert made.shape == (values.size // 6, 2, 3)
    assert made.ravel().tolist() == values.ravel().tolist()


@pytest.mark.parametrize(
    ("values", "info", "part"),
    [
        (np.zeros((3, 2)), X, "the values have shape [3, 2]"),
        (np.zeros(7), X, "the values have shape [7]"),
        (np.zeros(0), X, "the values have shape [0]"),
        (np.array(["a"]), X, "are not FP32"),
        (np.array([300]), TensorInfo(name="x", datatype="UINT8", shape=(1,)), "exceed UINT8"),
        (np.array([np.nan]), TensorInfo(name="x", datatype="INT8", shape=(1,)), "are not INT8"),
        (np.zeros(1), TensorInfo(name="x", datatype="FP8", shape=(1,)), "FP8 is unknown"),
    ],
)
def test_an_array_that_does_not_fit_is_refused(
    values: np.ndarray, info: TensorInfo, part: str
) -> None:
    with pytest.raises(EdgefleetError) as refused:
        fit(values, info)
    assert (refused.value.code, refused.value.field) == ("bad_request", "x")
    assert part in refused.value.message


def test_json_and_binary_tensors_are_as_the_protocol_says() -> None:
    infos = (
        TensorInfo(name="a", datatype="INT16", shape=(-1,)),
        TensorInfo(name="t", datatype="BYTES", shape=(-1,)),
    )
    tensors = {"a": np.array([1, -2], np.int16), "t": np.array(["é", b"\xff"], object)}
    text = encode_request(tensors, infos, outputs=["y"], binary=False, request_id="7")
    assert json.loads(text.body) == {
        "id": "7",
        "inputs": [
            {"name": "a", "shape": [2], "datatype": "INT16", "data": [1, -2]},
            {"name": "t", "shape": [2], "datatype": "BYTES", "data": ["é", "�"]},
        ],
        "outputs": [{"name": "y"}],
    }
    raw = encode_request(tensors, infos, binary=True)
    head = int(raw.headers["Inference-Header-Content-Length"])
    asked = json.loads(raw.body[:head])
    assert [one["parameters"] for one in asked["inputs"]] == [
        {"binary_data_size": 4},
        {"binary_data_size": 11},
    ]
    assert asked["parameters"] == {"binary_data_output": True}
    assert raw.body[head:] == (
        struct.pack("<hh", 1, -2) + b"\x02\0\0\0" + "é".encode() + b"\x01\0\0\0\xff"
    )


def test_a_large_or_a_half_tensor_is_binary_by_itself() -> None:
    small = encode_request({"x": np.zeros((1, 2, 3), np.float32)}, [X])
    large = encode_request({"x": np.zeros((999, 2, 3), np.float32)}, [X])
    half = TensorInfo(name="h", datatype="FP16", shape=(1,))
    assert "Inference-Header-Content-Length" not in small.headers
    assert "Inference-Header-Content-Length" in large.headers
    assert encode_request({"h": np.ones(1, np.float16)}, [half], binary=False).body.endswith(
        b"\x00\x3c"
    )


@pytest.mark.parametrize("datatype", sorted(NUMPY_TYPES))
def test_each_datatype_goes_out_in_binary_and_comes_back(datatype: str) -> None:
    info = TensorInfo(name="x", datatype=datatype, shape=(3,))
    values = ["a", "", "bé"] if datatype == "BYTES" else [0, 1, 1]
    sent = encode_request({"x": fit(np.array(values), info)}, [info], binary=True)
    head = int(sent.headers["Inference-Header-Content-Length"])
    data = sent.body[head:]
    output = {"name": "x", "datatype": datatype, "shape": [3]}
    output["parameters"] = {"binary_data_size": len(data)}
    answer = json.dumps({"model_name": "m", "model_version": "1", "outputs": [output]}).encode()
    read = decode_answer({"inference-header-content-length": str(len(answer))}, answer + data)
    assert read.tensors["x"].tolist() == values
    assert (read.model, read.release, read.datatypes) == ("m", "1", {"x": datatype})


def test_bf16_is_rounded_to_the_nearest() -> None:
    info = TensorInfo(name="x", datatype="BF16", shape=(4,))
    values = np.array([1.0, 1.0 + 2**-8, 1.0 + 3 * 2**-8, np.inf], np.float32)
    body = encode_request({"x": values}, [info]).body
    assert body[-8:] == struct.pack("<4H", 0x3F80, 0x3F80, 0x3F82, 0x7F80)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, b"<html>"),
        ({}, b'{"outputs":[{"name":"y","datatype":"FP32","shape":[2],"data":[1]}]}'),
        ({}, b'{"outputs":[{"name":"y","datatype":"FP9","shape":[1],"data":[1]}]}'),
        ({}, b'{"outputs":[{"name":"y","datatype":"FP32","shape":[1]}]}'),
        ({}, b'{"outputs":[{"name":"y","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":9}}]}'),
    ],
)  # fmt: skip
def test_an_answer_that_is_none_is_malformed(headers: dict[str, str], body: bytes) -> None:
    with pytest.raises(EdgefleetError) as found:
        decode_answer(headers, body)
    assert found.value.code == "answer_malformed"


@pytest.mark.parametrize(
    ("status", "body", "code", "message"),
    [
        (503, b'{"error":"full","code":"overloaded","hint":"wait","field":"q"}', "overloaded", "full"),
        (404, b'{"error":"unknown model"}', "not_found", "unknown model"),
        (400, b'{"error":"shape\\nwrong"}', "bad_request", "shape wrong"),
        (500, b"oops", "inference_failed", "The server answered with status 500."),
        (429, b'{"error":"quota","code":"of_later"}', "overloaded", "quota"),
        (501, b"[1]", "inference_failed", "The server answered with status 501."),
    ],
)  # fmt: skip
def test_the_error_of_any_server_is_typed(
    status: int, body: bytes, code: str, message: str
) -> None:
    error = error_of_answer(status, body)
    assert (error.code, error.message) == (code, message)


def test_samples_fit_each_input() -> None:
    info = ModelInfo(name="m", inputs=(X, TensorInfo(name="t", datatype="BYTES", shape=(-1, -1))))
    made = sample_tensors(info, 5, 1)
    assert {name: one.shape for name, one in made.items()} == {"x": (5, 2, 3), "t": (5, 1)}
    assert made["x"].tolist() == sample_tensors(info, 5, 1)["x"].tolist()
    assert made["x"].tolist() != sample_tensors(info, 5, 2)["x"].tolist()


@pytest.mark.parametrize(
    ("address", "url"),
    [("camera-1:8500", "http://camera-1:8500"), ("https://x:1/", "https://x:1"), ("[::1]:80", "http://[::1]:80")],
)  # fmt: skip
def test_an_address_is_a_url(address: str, url: str) -> None:
    assert server_url(address) == url


@pytest.mark.parametrize("address", ["camera-1", ":80", "a:99999", "ftp://a:1", "a:1/v2", "u@a:1"])
def test_another_address_is_refused(address: str) -> None:
    with pytest.raises(EdgefleetError, match="not HOST:PORT") as refused:
        server_url(address)
    assert refused.value.code == "setting_invalid"
