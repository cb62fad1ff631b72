"""The gRPC services of the serving process: paths to calls, on a listener of HTTP/2."""

import asyncio
from collections.abc import Awaitable
from typing import Final

from edgefleet.base.errors import EdgefleetError, Overloaded
from edgefleet.http2.header_block import encode_fields
from edgefleet.http2.server import Receiver, ServerStream
from edgefleet.serving.client_quota import ClientQuota
from edgefleet.serving.grpc.call import Asked, Refusal, StreamCall, UnaryCall, refuse
from edgefleet.serving.grpc.call_inferences import CallInferences
from edgefleet.serving.grpc.codec import GrpcCodec, InferCall
from edgefleet.serving.grpc.health import watch
from edgefleet.serving.grpc.infer_message import InferMessage, raw_offset, read_infer
from edgefleet.serving.grpc.methods import HEALTH_SERVICE, SERVICE, Methods
from edgefleet.serving.grpc.protobuf import sized
from edgefleet.serving.grpc.status import CallFailed, Code, error_text, failure

_INFER: Final = f"/{SERVICE}/ModelInfer".encode()
_STREAM: Final = f"/{SERVICE}/ModelStreamInfer".encode()
_WATCH: Final = f"/{HEALTH_SERVICE}/Watch".encode()
_URGENT: Final = frozenset(
    {
        _WATCH,
        f"/{HEALTH_SERVICE}/Check".encode(),
        f"/{SERVICE}/ServerLive".encode(),
        f"/{SERVICE}/ServerReady".encode(),
    }
)
"""Calls without a quota, which are answered although all connections are in use."""
_TYPES: Final = (b"application/grpc", b"application/grpc+proto")
_ERROR: Final = 1  # fields of ModelStreamInferResponse
_ANSWER: Final = 2
_NOT_GRPC: Final = encode_fields([(b":status", b"415"), (b"accept", b"application/grpc")])
_JSON_LENGTH: Final = b"inference-header-content-length"


class GrpcService:
    """The handler of the gRPC listener. See ``http2.server.listen``.

    ``limit_bytes`` bounds one message, ``buffered_bytes`` all messages in memory. Each call takes
    of its client's ``quota``, and each message of a stream.
    """

    def __init__(
        self,
        inferences: CallInferences,
        *,
        limit_bytes: int,
        buffered_bytes: int,
        quota: ClientQuota | None = None,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.limit_bytes = limit_bytes
        self.head_fields: tuple[tuple[bytes, bytes], ...] = ()
        self.left_bytes = buffered_bytes
        self._inferences = inferences
        self._host = inferences.host
        self._methods = Methods(inferences)
        self._codec = GrpcCodec()
        self._generation = -1
        self._quota = quota or ClientQuota(0)

    def __call__(self, stream: ServerStream) -> Receiver:
        headers = stream.headers
        kind = headers.get(b"content-type", b"")
        if kind not in _TYPES and kind.partition(b";")[0] not in _TYPES:
            return Refusal(stream, _NOT_GRPC)
        if headers[b":method"] != b"POST":
            return refuse(stream, CallFailed(Code.UNIMPLEMENTED, "A call is a POST."))
        path = headers[b":path"]
        try:
            if path not in _URGENT:
                if stream.crowded is not None:
                    raise stream.crowded
                if path != _STREAM:
                    self._quota.consume(stream.peer)
            return self._call(stream, path)
        except CallFailed as end:
            return refuse(stream, end)
        except EdgefleetError as error:
            return refuse(stream, failure(error))

    def _call(self, stream: ServerStream, path: bytes) -> Receiver:
        """The receiver of a call. Raises CallFailed."""
        if path == _INFER:
            self._mark_generation()
            return UnaryCall(self, stream, self._infer)
        method = self._methods.unary.get(path)
        if method is not None:
            return UnaryCall(self, stream, lambda message, _: method(message))
        if path == _STREAM:
            self._mark_generation()
            return StreamCall(self, stream, self._infer_of_stream)
        if path == _WATCH:
            return watch(self, stream, self._methods)
        name = path.decode("ascii", "replace")[:128]
        raise CallFailed(Code.UNIMPLEMENTED, f"There is no method {name}.")

    def account(self, count: int) -> None:
        """Count bytes of messages in memory. Raises DeviceError ``overloaded``."""
        if count > self.left_bytes:
            raise Overloaded("memory", "The server has no memory for another message now.")
        self.left_bytes -= count

    def room(self, size: int, data: memoryview) -> memoryview | None:
        """Memory for a message of ``size`` bytes, so that its first raw tensor is aligned."""
        offset = raw_offset(data)
        return self._host.bodies.room(size, {_JSON_LENGTH: b"%d" % offset})

    def _mark_generation(self) -> None:
        """Replies name the set of models, as those of REST do."""
        if self._generation != self._host.generation:
            self._generation = self._host.generation
            self.head_fields = ((b"edgefleet-generation", b"%d" % self._generation),)

    def _infer(self, data: memoryview, asked: Asked) -> bytes | Awaitable[bytes]:
        return self._ask(read_infer(data), asked)

    def _ask(self, message: InferMessage, asked: Asked) -> bytes | Awaitable[bytes]:
        head = message.head
        timeout_us = 0
        if asked.deadline is not None:
            timeout_us = max(1, int((asked.deadline - self.loop.time()) * 1e6))
        return self._inferences.infer(
            self._codec, InferCall(message, timeout_us, asked), head.model, head.version or None
        )

    def _infer_of_stream(self, data: memoryview, asked: Asked) -> bytes | Awaitable[bytes]:
        """Answer one request of ModelStreamInfer. An error is an answer: the stream goes on."""
        try:
            self._quota.consume(asked.peer)
            answer = self._ask(read_infer(data), asked)
        except EdgefleetError as error:
            return sized(_ERROR, error_text(error).encode())
        return sized(_ANSWER, answer) if isinstance(answer, bytes) else _later(answer)


async def _later(coming: Awaitable[bytes]) -> bytes:
    try:
        return sized(_ANSWER, await coming)
    except EdgefleetError as error:
        return sized(_ERROR, error_text(error).encode())
