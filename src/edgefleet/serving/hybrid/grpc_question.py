"""A request over gRPC that may be forwarded: as the same request over REST, with binary tensors.

So the fallback needs no gRPC, and both protocols share its address, connections and limits.
"""

from collections.abc import Awaitable, Mapping
from functools import lru_cache
from typing import Annotated, ClassVar, Final, TypeVar, cast
from urllib.parse import quote

import msgspec
from msgspec import Meta

from edgefleet.base.errors import EdgefleetError
from edgefleet.protocol.release import LAYOUTS, Datatype
from edgefleet.protocol.wire import encode
from edgefleet.serving.active_release import Release
from edgefleet.serving.binary_tensors import from_binary, to_binary
from edgefleet.serving.declared import bad_tensor
from edgefleet.serving.grpc.call import Metadata
from edgefleet.serving.grpc.codec import FINAL, FINAL_WANTED, InferCall, shorter
from edgefleet.serving.grpc.contents import encode_contents, has_typed_form, read_contents
from edgefleet.serving.grpc.infer_message import (
    InputHead,
    Parameter,
    encode_parameter,
    encode_reply,
    output_head,
    raw_output_head,
    reply_head,
    typed_output,
)
from edgefleet.serving.grpc.protobuf import sized
from edgefleet.serving.hybrid.answer import malformed
from edgefleet.serving.hybrid.door import Hybrid
from edgefleet.serving.hybrid.policy import Event
from edgefleet.serving.hybrid.question import Fields, Question, kept, may_forward
from edgefleet.serving.inference import Codec
from edgefleet.serving.limits import RANK, TENSORS
from edgefleet.serving.model_host import ModelHost
from edgefleet.serving.runtime import Tensor
from edgefleet.serving.schedule import timeout_us
from edgefleet.serving.tensors import JSON_LENGTH, json_length, refuse_shared_memory

F = TypeVar("F")

_PARAMETERS: Final = 4  # a field of ModelInferResponse
_TRACE: Final = ("traceparent",)


class HybridCalls:
    """See ``grpc.call_inferences.CallInferences``."""

    def __init__(self, hybrid: Hybrid) -> None:
        self._hybrid = hybrid

    @property
    def host(self) -> ModelHost:
        return self._hybrid.inferences.host

    def find(self, model: str, version: str | None = None) -> Release:
        return self._hybrid.find(model, version)

    def infer(
        self,
        codec: Codec[InferCall, F, bytes],
        request: InferCall,
        model: str,
        version: str | None = None,
    ) -> bytes | Awaitable[bytes]:
        if not may_forward(request.call.headers, (model, version or "any")):
            return self._hybrid.inferences.infer(codec, request, model, version)
        return self._hybrid.answer(CallQuestion(codec, request, model), version)


class CallQuestion(Question[InferCall, F, bytes]):
    """See ``Question``. The fields of a reply are metadata of the call."""

    replies: ClassVar[type] = bytes

    def __init__(self, codec: Codec[InferCall, F, bytes], request: InferCall, model: str) -> None:
        super().__init__(codec, request, model)
        self._json_bytes = 0

    def timeout_us(self) -> int:
        allowed_us = self.request.timeout_us
        try:
            return shorter(timeout_us(self.request.message.head.parameters), allowed_us)
        except EdgefleetError:  # another server may support the parameter
            return allowed_us

    @property
    def size_bytes(self) -> int:
        head, raw = self.request.message
        contents = (len(one.contents) for one in head.inputs if one.contents is not None)
        return sum(map(len, raw)) + sum(contents)

    @property
    def target(self) -> str:
        head = self.request.message.head
        version = f"/versions/{quote(head.version, safe='')}" if head.version else ""
        return f"/v2/models/{quote(head.model, safe='')}{version}/infer"

    def body(self) -> memoryview:
        """See ``Question.body``. Raises Refused, whose field is the input."""
        head = self.request.message.head
        pieces = self._pieces()
        inputs = [_head(one, len(piece)) for one, piece in zip(head.inputs, pieces, strict=True)]
        outputs = [
            {"name": name, "parameters": {**given, "binary_data": True}}
            for name, given in head.outputs
        ]
        parameters: dict[str, Parameter] = {**head.parameters, "binary_data_output": True}
        parameters.pop(FINAL_WANTED, None)
        left_s = self.left_s()
        if left_s is not None:
            parameters["timeout"] = max(1, int(left_s * 1e6))
        request = {"inputs": inputs, "parameters": parameters}
        json = encode(
            request
            | ({"id": head.id} if head.id else {})
            | ({"outputs": outputs} if outputs else {})
        )
        self._json_bytes = len(json)
        return memoryview(b"".join((json, *pieces)))

    def headers(self) -> list[tuple[str, bytes]]:
        return [
            ("content-type", b"application/octet-stream"),
            (JSON_LENGTH.decode(), b"%d" % self._json_bytes),
            *kept(self.request.call.headers, _TRACE),
        ]

    def answer(self, headers: Mapping[bytes, bytes], body: bytes, event: Event) -> bytes:
        """See ``Question.answer``. Contents are typed if those of the request were."""
        length = json_length(headers)
        if length is not None and not 0 <= length <= len(body):
            raise malformed("the length of its JSON is wrong")
        found = _parsed(body[:length])
        left = memoryview(body)[len(body) if length is None else length :]
        head = self.request.message.head
        typed = any(one.contents is not None for one in head.inputs)
        typed = typed and all(has_typed_form(one.datatype) for one in found.outputs)
        outputs: list[bytes] = []
        raw: list[bytes | memoryview] = []
        for one in found.outputs:
            size_bytes = one.size_bytes(len(left))
            piece, left = left[:size_bytes], left[size_bytes:]
            tensor = _tensor(one, piece)
            if typed:
                shown = output_head(one.name, one.datatype, one.shape)
                outputs.append(typed_output(shown, encode_contents(tensor, one.datatype)))
                continue
            outputs.append(raw_output_head(one.name, one.datatype, one.shape))
            raw.append(piece)
        if left:
            raise malformed(f"{len(left)} bytes after its JSON belong to no output")
        own = {"answered_by": "fallback", "fallback_reason": str(event)}
        given = {
            name: value for name, value in (found.parameters or {}).items() if value is not None
        }
        parameters = [encode_parameter(*one) for one in (given | own).items()]
        start = reply_head(found.model_name, found.model_version or "")
        start += b"".join(sized(_PARAMETERS, one) for one in parameters)
        if head.parameters.get(FINAL_WANTED) is True:
            start += FINAL
        return encode_reply(start, found.id or head.id, outputs, raw)

    def marked(self, reply: bytes, fields: Fields) -> bytes:
        self.request.call.note(_metadata(fields))
        return reply

    def refused(self, error: EdgefleetError, fields: Fields, note: str) -> bytes:
        """Raises the error: the status of the call. The outcome in the metadata says the note."""
        del note
        self.marked(b"", fields)
        raise error

    def _pieces(self) -> list[bytes | memoryview]:
        """The inputs in the binary form. Raises Refused."""
        head, raw = self.request.message
        typed = any(one.contents is not None for one in head.inputs)
        if bool(typed and raw) or not (typed or len(raw) == len(head.inputs)):
            raise bad_tensor("raw_input_contents", "Give contents for each input, raw or typed.")
        for one in head.inputs:
            refuse_shared_memory(one.name, dict(one.parameters))
        return [_typed_piece(one) for one in head.inputs] if typed else list(raw)


@lru_cache(maxsize=128)
def _metadata(fields: Fields) -> Metadata:
    return tuple((name.encode(), value.encode()) for name, value in fields)


Size = Annotated[int, Meta(ge=0, le=1 << 40)]
Whole = Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]


class _Output(msgspec.Struct, frozen=True):
    name: str
    datatype: Datatype
    shape: Annotated[tuple[Size, ...], Meta(max_length=RANK)]
    parameters: dict[str, msgspec.Raw] | None = None

    def size_bytes(self, most: int) -> int:
        """The size of its values, of which at most ``most`` bytes came. Raises NetworkError."""
        text = bytes((self.parameters or {}).get("binary_data_size", b""))
        if not text.isdigit() or len(text) > 12 or int(text) > most:
            raise malformed(f"output {self.name[:60]!r} is not binary, or has fewer bytes")
        return int(text)


class _Answer(msgspec.Struct, frozen=True):
    outputs: Annotated[tuple[_Output, ...], Meta(max_length=TENSORS)]
    model_name: str = ""
    model_version: str | None = None
    id: str | None = None
    parameters: dict[str, bool | Whole | float | str | None] | None = None


def _parsed(json: bytes) -> _Answer:
    try:
        return msgspec.json.decode(json, type=_Answer)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise malformed("it is not an answer of the Open Inference Protocol") from error


def _tensor(one: _Output, data: memoryview) -> Tensor:
    try:
        return from_binary(one.name, data, one.datatype, one.shape)
    except (EdgefleetError, ValueError) as error:  # ValueError: of a shape beyond NumPy's
        raise malformed(f"output {one.name[:60]!r} has other bytes than its shape") from error


def _head(one: InputHead, size_bytes: int) -> dict[str, object]:
    """The JSON of an input with binary values."""
    parameters: dict[str, Parameter] = {**one.parameters, "binary_data_size": size_bytes}
    return {
        "name": one.name,
        "datatype": one.datatype,
        "shape": one.shape,
        "parameters": parameters,
    }


def _typed_piece(one: InputHead) -> bytes | memoryview:
    if one.datatype not in LAYOUTS or min(one.shape, default=0) < 0:
        raise bad_tensor(one.name, f"{one.datatype} {list(one.shape)} is not a tensor.")
    contents = one.contents if one.contents is not None else memoryview(b"")
    return to_binary(read_contents(one.name, contents, cast("Datatype", one.datatype), one.shape))
