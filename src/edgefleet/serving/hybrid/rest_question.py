"""A request over REST that may be forwarded: it goes to the fallback as it came."""

from collections.abc import Mapping
from functools import lru_cache
from typing import ClassVar, Final, TypeVar
from urllib.parse import quote

import msgspec

from edgefleet.base.errors import EdgefleetError
from edgefleet.http1.message import Reply, Request
from edgefleet.protocol.wire import decode
from edgefleet.serving.hybrid.answer import reply_of
from edgefleet.serving.hybrid.policy import Event
from edgefleet.serving.hybrid.question import Fields, Question, kept
from edgefleet.serving.routes import render_error
from edgefleet.serving.schedule import timeout_us
from edgefleet.serving.tensors import Parameters, json_length

F = TypeVar("F")

_RESERVED: Final = "%!$&'()*+,;=:@/?"  # of a query, see RFC 3986


class RestQuestion(Question[Request, F, Reply]):
    """See ``Question``."""

    replies: ClassVar[type] = Reply

    def timeout_us(self) -> int:
        request = self.request
        if not request.path.startswith("/v2/") or b"content-encoding" in request.headers:
            return 0
        body = request.view
        length = json_length(request.headers)
        if length is not None:
            body = body[: max(0, length)]
        try:
            return timeout_us(decode(body, _Timed).parameters or {})
        except EdgefleetError:
            return 0

    @property
    def size_bytes(self) -> int:
        return len(self.request.view)

    @property
    def target(self) -> str:
        request = self.request
        path = quote(request.path, safe="/:")
        return f"{path}?{quote(request.query, safe=_RESERVED)}" if request.query else path

    def body(self) -> memoryview:
        return self.request.view

    def headers(self) -> list[tuple[str, bytes]]:
        return kept(self.request.headers)

    def answer(self, headers: Mapping[bytes, bytes], body: bytes, event: Event) -> Reply:
        return reply_of(self.request.path, headers, body, event)

    def marked(self, reply: Reply, fields: Fields) -> Reply:
        return msgspec.structs.replace(reply, lines=reply.lines + _lines(fields))

    def refused(self, error: EdgefleetError, fields: Fields, note: str) -> Reply:
        return self.marked(render_error(error, note), fields)


@lru_cache(maxsize=128)
def _lines(fields: Fields) -> bytes:
    return "".join(f"{name}: {value}\r\n" for name, value in fields).encode()


class _Timed(msgspec.Struct):
    parameters: Parameters | None = None
