"""The codec of protocol buffers, compared with the classes that protoc generates; and damaged bytes."""

import random
from typing import Any

import numpy as np
import pytest
from google.protobuf.json_format import MessageToDict
from tritonclient.grpc import service_pb2 as pb

from edgefleet.base.errors import OperatorError
from edgefleet.serving.grpc import schemas
from edgefleet.serving.grpc.contents import encode_contents, read_contents
from edgefleet.serving.grpc.framing import MessageReader, frame, inflate, timeout_s
from edgefleet.serving.grpc.infer_message import (
    encode_reply,
    raw_offset,
    raw_output_head,
    read_infer,
    reply_head,
)
from edgefleet.serving.grpc.protobuf import decode, encode
from edgefleet.serving.grpc.status import CallFailed, percent_encoded

LIMIT = 1 << 20


def request_of(draw: random.Random) -> pb.ModelInferRequest:
    """Any request, valid or not."""
    made = pb.ModelInferRequest(
        model_name=draw.choice(("", "m", "é" * 40)),
        model_version=draw.choice(("", "1")),
        id=draw.choice(("", "an id")),
    )
    for name, value in (("a", True), ("b", -3), ("c", "text"), ("d", 0.5)):
        if draw.randrange(2):
            field = {bool: "bool_param", int: "int64_param", str: "string_param"}
            setattr(made.parameters[name], field.get(type(value), "double_param"), value)
    for _ in range(draw.randrange(4)):
        tensor = made.inputs.add(name="x" * draw.randrange(300), datatype="FP32")
        tensor.shape.extend(draw.choice((-1, 0, 3, 1 << 40)) for _ in range(draw.randrange(5)))
        if draw.randrange(2):
            tensor.contents.fp32_contents.extend([1.5] * draw.randrange(4))
        else:
            made.raw_input_contents.append(draw.randbytes(draw.randrange(40)))
    for _ in range(draw.randrange(3)):
        made.outputs.add(name="y").parameters["classification"].int64_param = 2
    return made


def test_a_request_reads_as_the_generated_class_reads_it() -> None:
    draw = random.Random(1)
    for _ in range(300):
        made = request_of(draw)
        data = made.SerializeToString()
        for _ in range(2):  # the second time, what was remembered is used
            head, raw = read_infer(memoryview(data))
            assert (head.model, head.version, head.id) == (
                made.model_name,
                made.model_version,
                made.id,
            )
            assert dict(head.parameters) == {
                name: getattr(one, one.WhichOneof("parameter_choice"))
                for name, one in made.parameters.items()
            }
            assert [bytes(one) for one in raw] == list(made.raw_input_contents)
            assert [(one.name, one.datatype, one.shape) for one in head.inputs] == [
                (one.name, one.datatype, tuple(one.shape)) for one in made.inputs
            ]
            assert [name for name, _ in head.outputs] == [one.name for one in made.outputs]


def test_a_request_of_the_same_size_with_another_head_is_read_anew() -> None:
    def sent(name: str) -> tuple[str, bytes]:
        made = pb.ModelInferRequest(model_name=name)
        made.inputs.add(name="x", datatype="FP32", shape=[1])
        made.raw_input_contents.append(name.encode() * 2)
        head, raw = read_infer(memoryview(made.SerializeToString()))
        return head.model, bytes(raw[0])

    assert [sent(name) for name in ("aa", "bb", "aa")] == [
        ("aa", b"aaaa"),
        ("bb", b"bbbb"),
        ("aa", b"aaaa"),
    ]


def test_the_place_of_the_first_tensor_is_found_in_the_first_bytes() -> None:
    made = pb.ModelInferRequest(model_name="m")
    made.inputs.add(name="x", datatype="FP32", shape=[100])
    made.raw_input_contents.append(b"\xab" * 400)
    data = made.SerializeToString()
    assert data[raw_offset(memoryview(data)[:100]) :] == b"\xab" * 400
    assert raw_offset(memoryview(data)[:5]) == 0


def test_a_reply_is_the_message_of_the_generated_class() -> None:
    outputs = [raw_output_head("y", "FP32", (1, 2)), raw_output_head("scalar", "INT8", ())]
    data = encode_reply(reply_head("m", "7"), "an id", outputs, [b"12345678", b"9"])
    made = pb.ModelInferResponse.FromString(data)
    assert (made.model_name, made.model_version, made.id) == ("m", "7", "an id")
    assert [(one.name, list(one.shape)) for one in made.outputs] == [("y", [1, 2]), ("scalar", [])]
    assert list(made.raw_output_contents) == [b"12345678", b"9"]


@pytest.mark.parametrize(
    ("datatype", "field", "values"),
    [
        ("BOOL", "bool_contents", [True, False]),
        ("INT8", "int_contents", [-128, 127]),
        ("INT32", "int_contents", [-(2**31), 0, 300]),
        ("INT64", "int64_contents", [-(2**63), 2**63 - 1, -1]),
        ("UINT16", "uint_contents", [0, 65_535]),
        ("UINT64", "uint64_contents", [2**64 - 1, 127, 128]),
        ("FP32", "fp32_contents", [0.5, -1.5]),
        ("FP64", "fp64_contents", [0.1]),
    ],
)
def test_typed_contents_are_those_of_the_generated_class(
    datatype: Any, field: str, values: list[Any]
) -> None:
    sent = pb.InferTensorContents(**{field: values}).SerializeToString()
    array = read_contents("x", memoryview(sent), datatype, (len(values),))
    assert array.tolist() == values
    back = pb.InferTensorContents.FromString(encode_contents(array, datatype))
    assert list(getattr(back, field)) == values


@pytest.mark.parametrize(
    ("schema", "made"),
    [
        (
            schemas.MODEL_METADATA,
            pb.ModelMetadataResponse(
                name="m",
                versions=["1", "2"],
                inputs=[
                    pb.ModelMetadataResponse.TensorMetadata(name="x", datatype="A", shape=[-1, 3])
                ],
            ),
        ),
        (
            schemas.TRACE,
            pb.TraceSettingRequest(
                model_name="m",
                settings={"a": pb.TraceSettingRequest.SettingValue(value=["x", "y"])},
            ),
        ),
        (
            schemas.LOG,
            pb.LogSettingsRequest(
                settings={
                    "a": pb.LogSettingsRequest.SettingValue(bool_param=False),
                    "b": pb.LogSettingsRequest.SettingValue(uint32_param=3),
                }
            ),
        ),
        (schemas.INDEX_REQUEST, pb.RepositoryIndexRequest(repository_name="r", ready=True)),
    ],
)
def test_a_small_message_goes_both_ways(schema: Any, made: Any) -> None:
    data = made.SerializeToString()
    read = decode(memoryview(data), schema)
    again = type(made).FromString(encode(read, schema))
    assert MessageToDict(again) == MessageToDict(made)


def damaged(draw: random.Random) -> bytes:
    data = bytearray(request_of(draw).SerializeToString() or b"\0")
    for _ in range(draw.randrange(1, 4)):
        data[draw.randrange(len(data))] = draw.randrange(256)
    return bytes(data if draw.randrange(2) else data[: draw.randrange(1, len(data) + 1)])


def test_damaged_messages_are_refused_or_read() -> None:
    draw = random.Random(2)
    outcomes = {"read": 0, "refused": 0}
    for _ in range(2_000):
        data = memoryview(damaged(draw))
        raw_offset(data)
        for read in (read_infer, lambda data: decode(data, schemas.TRACE)):
            try:
                read(data)
            except OperatorError:
                outcomes["refused"] += 1
            else:
                outcomes["read"] += 1
    assert min(outcomes.values()) > 100, outcomes


def test_damaged_contents_are_refused_or_read() -> None:
    draw = random.Random(3)
    for _ in range(500):
        datatype: Any = draw.choice(("BOOL", "INT8", "UINT64", "FP32", "BYTES"))
        try:
            array = read_contents(
                "x", memoryview(draw.randbytes(draw.randrange(12))), datatype, (2,)
            )
        except OperatorError:
            continue
        else:
            assert array.shape == (2,)


@pytest.mark.parametrize("encoding", [b"identity", b"gzip", b"deflate"])
@pytest.mark.parametrize("step", [1, 3, 5, 1_000, 1 << 20])
def test_messages_in_any_parts_are_the_same_messages(encoding: bytes, step: int) -> None:
    rng = np.random.default_rng(4)
    sent = [b"", b"small", rng.bytes(200_000 if step > 5 else 2_000), b"last" * 1_000]
    data = b"".join(frame(one, encoding) for one in sent)
    reader = MessageReader(LIMIT, lambda size, _: memoryview(bytearray(size)))
    got = []
    for at in range(0, len(data), step):
        got += reader.feed(memoryview(data[at : at + step]))
    assert [bytes(inflate(one, encoding, LIMIT)) for one in got] == sent
    assert reader.is_between


@pytest.mark.parametrize(
    "data",
    [
        b"\x02\0\0\0\0",
        b"\0\xff\xff\xff\xff",
        b"\x01\0\0\0\x03abc",
        b"\x01" + frame(b"x" * 2_000)[1:],
    ],
)
def test_a_malformed_message_ends_the_call(data: bytes) -> None:
    def read() -> list[memoryview]:
        reader = MessageReader(LIMIT, lambda *_: None)
        return [inflate(one, b"gzip", LIMIT) for one in reader.feed(memoryview(data))]

    with pytest.raises(CallFailed):
        read()


@pytest.mark.parametrize(
    ("message", "encoded"),
    [
        ("plain text, as it is", b"plain text, as it is"),
        ("100 % of é", b"100 %25 of %C3%A9"),
        ("a\nb", b"a%0Ab"),
        ("é" * 2_000, b"%C3%A9" * 1_024),
    ],
)
def test_a_message_of_a_status_is_percent_encoded(message: str, encoded: bytes) -> None:
    assert percent_encoded(message) == encoded


@pytest.mark.parametrize(
    ("given", "seconds"), [(b"1H", 3_600), (b"2M", 120), (b"3S", 3), (b"5m", 5e-3), (b"7u", 7e-6)]
)
def test_a_timeout_is_read_with_its_unit(given: bytes, seconds: float) -> None:
    assert timeout_s(given) == pytest.approx(seconds)
