"""JSON of a megabyte and more is read and written in a thread, and means what short JSON means."""

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edgefleet.base.errors import EdgefleetError
from edgefleet.http1.message import Reply, Request, made
from edgefleet.protocol.serving import Apply
from edgefleet.serving import oip_codec, tensors
from edgefleet.serving.long_json import decode_numbers, encoded
from edgefleet.serving.model_host import ModelHost
from edgefleet.serving.oip import OpenInference
from edgefleet.serving.routes import render_error
from support.tiny_models import TinyModel, classifier

FLOATS: "msgspec.json.Decoder[list[Any]]" = msgspec.json.Decoder(list[float])
INTS: "msgspec.json.Decoder[list[Any]]" = msgspec.json.Decoder(list[int])
F4 = np.dtype(np.float32)


@pytest.mark.parametrize(
    "shape", [(1,), (7,), (2, 3), (2, 3, 4), (1, 1, 1, 5), (30_000,), (3, 9_000)]
)
@pytest.mark.parametrize("spaces", [(",", ":"), (" ,\n", " : ")])
def test_flat_and_nested_lists_are_read_in_pieces(
    shape: tuple[int, ...], spaces: tuple[str, str]
) -> None:
    array = np.random.default_rng(3).normal(0, 1e5, shape).astype(np.float32)
    for values in (array.ravel().tolist(), array.tolist()):
        data = json.dumps(values, separators=spaces).encode()
        read = decode_numbers(data, F4, FLOATS, shape)
        assert read is not None
        assert np.array_equal(read, array.ravel())


@pytest.mark.parametrize(
    "data",
    [
        b"[1,2,3]",
        b"[1,2,3,4,5]",
        b"[[1,2,3],[4]]",
        b"[[1],[2],[3],[4]]",
        b"[[[1,2],[3,4]]]",
        b'[1,2,3,"4"]',
        b"[1,2,3,null]",
        b"[]",
        b"4",
        b"[1,2,3,true]",
        b"[1,2,[3],4]",
    ],
)
def test_a_list_of_another_shape_is_no_list_of_numbers(data: bytes) -> None:
    assert decode_numbers(data, F4, FLOATS, (2, 2)) is None


@pytest.mark.parametrize("shape", [(1 << 40,), (1 << 20, 1 << 20), (0,), (-1,)])
def test_a_shape_that_the_text_cannot_have_takes_no_memory(shape: tuple[int, ...]) -> None:
    assert decode_numbers(b"[1,2]", F4, FLOATS, shape) is None


def test_a_fraction_is_no_integer() -> None:
    with pytest.raises(msgspec.ValidationError):
        decode_numbers(b"[1,2.5]", np.dtype(np.int64), INTS, (2,))


def test_the_json_of_an_answer_is_the_usual_json() -> None:
    tensors_of = [
        np.linspace(-1, 1, 20_000, dtype=np.float32).reshape(2, 10_000),
        np.array([["a", "b"]], dtype=object),
        np.array([[True]]),
    ]
    outputs = [({"name": f"o{n}", "shape": one.shape}, one) for n, one in enumerate(tensors_of)]
    head = {"model_name": "m", "id": "1"}
    usual = {
        **head,
        "outputs": [{**named, "data": one.ravel().tolist()} for named, one in outputs],
    }
    assert encoded(head, outputs) == msgspec.json.encode(usual)


@pytest.fixture
def short_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything goes the way of long JSON."""
    monkeypatch.setattr(tensors, "LONG_JSON_BYTES", 64)
    monkeypatch.setattr(oip_codec, "LONG_JSON_BYTES", 64)
    monkeypatch.setattr(oip_codec, "LONG_JSON_ELEMENTS", 5)


@pytest.fixture
def model(tmp_path: Path) -> TinyModel:
    return classifier(tmp_path / "m.onnx")


def ask(model: TinyModel, body: object, data: bytes = b"") -> Reply:
    """The answer of a host with this model."""

    async def story() -> Reply:
        host = ModelHost()
        await host.apply(Apply(generation=1, models=(model.activate(),)))
        request = Request(
            "POST", "/v2/models/digits/infer", "", {}, data or msgspec.json.encode(body)
        )
        try:
            answer = OpenInference(host)(request)
            reply = answer if isinstance(answer, Reply) else await answer
            if reply.make is not None:
                reply = await made(reply)
        except EdgefleetError as error:
            reply = render_error(error)
        await host.close()
        return reply

    return asyncio.run(story())


def body_of(pixels: object, **more: object) -> dict[str, object]:
    tensor = {"name": "pixels", "shape": [2, 64], "datatype": "FP32", "data": pixels, **more}
    return {"id": "one", "inputs": [tensor]}


@pytest.mark.usefixtures("short_is_long")
@pytest.mark.parametrize("nested", [True, False])
def test_a_long_request_has_the_answer_of_a_short_one(model: TinyModel, nested: bool) -> None:
    pixels = np.random.default_rng(2).random((2, 64), np.float32)
    reply = ask(model, body_of(pixels.tolist() if nested else pixels.ravel().tolist()))
    assert reply.status == 200
    (output,) = msgspec.json.decode(reply.body)["outputs"]
    assert (output["name"], output["shape"]) == ("probabilities", [2, 10])
    wanted = model.probabilities(pixels).ravel()
    assert np.allclose(output["data"], wanted, atol=1e-5)


BAD: dict[str, Any] = {
    "pixels: The model needs FP32, not INT64.": body_of([0] * 128, datatype="INT64"),
    "pixels: The model needs shape [-1, 64], not [128].": body_of([0.5] * 128, shape=[128]),
    "other: This input is unknown": body_of([0.5] * 128, name="other"),
    "pixels: data does not have shape [2, 64].": body_of([0.5] * 127),
    "pixels: data is not a FP32 tensor": body_of([0.5] * 127 + ["x"]),
    "pixels: The model needs FP32, not FP99.": body_of([0.5] * 128, datatype="FP99"),
    "pixels: The model needs shape [-1, 64], not [0, 64].": body_of([0.5] * 128, shape=[0, 64]),
}


@pytest.mark.usefixtures("short_is_long")
@pytest.mark.parametrize("text", BAD)
def test_a_long_request_is_refused_as_a_short_one_is(model: TinyModel, text: str) -> None:
    reply = ask(model, BAD[text])
    assert reply.status == 400
    assert msgspec.json.decode(reply.body)["error"].startswith(text)


@pytest.mark.usefixtures("short_is_long")
def test_json_that_is_none_is_refused(model: TinyModel) -> None:
    reply = ask(model, None, b'{"inputs": [' + b"[" * 200)
    assert (reply.status, msgspec.json.decode(reply.body)["code"]) == (400, "bad_request")


@pytest.mark.usefixtures("short_is_long")
def test_long_json_is_decoded_in_another_thread(
    model: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: dict[str, str] = {}

    def noting(name: str, work: Any) -> Any:
        def noted(*args: Any) -> Any:
            threads[name] = threading.current_thread().name
            return work(*args)

        return noted

    monkeypatch.setattr(tensors, "decode_numbers", noting("read", decode_numbers))
    monkeypatch.setattr(oip_codec, "encoded", noting("write", encoded))
    assert ask(model, body_of([0.5] * 128)).status == 200
    assert threads == {"read": "long-json_0", "write": "long-json_0"}
