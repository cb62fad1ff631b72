"""grpc.health.v1.Health/Watch: the status of a service now, and again whenever it changes."""

import asyncio
from typing import Final

from edgefleet.http2.server import ServerStream
from edgefleet.serving.grpc import schemas
from edgefleet.serving.grpc.call import Server, StreamCall
from edgefleet.serving.grpc.framing import Message
from edgefleet.serving.grpc.methods import Methods
from edgefleet.serving.grpc.protobuf import decode, encode
from edgefleet.serving.grpc.status import CallFailed, Code

POLL_S: Final = 1.0
SERVICE_UNKNOWN: Final = 3


class HealthWatch(StreamCall):
    """A call of Watch. The status is asked for each POLL_S."""

    def __init__(self, server: Server, stream: ServerStream, methods: Methods) -> None:
        super().__init__(server, stream, lambda message, _: self._first(message))
        self._methods = methods
        self._name = ""
        self._status = -1
        self._poll: asyncio.TimerHandle | None = None

    def accept(self, messages: list[Message], size: int) -> None:
        if self._status >= 0 and messages:
            raise CallFailed(Code.INTERNAL, "The method takes one message.")
        super().accept(messages, size)

    def ended(self) -> None:
        """The request has ended; the answers go on."""
        if self._status < 0:
            super().ended()

    def _first(self, message: memoryview) -> bytes:
        self._name = decode(message, schemas.HEALTH_REQUEST).get("service", "")
        return self._now()

    def _now(self) -> bytes:
        known = self._methods.health(self._name)
        self._status = SERVICE_UNKNOWN if known is None else known
        self._poll = self._server.loop.call_later(POLL_S, self._again)
        return encode({"status": self._status}, schemas.HEALTH)

    def _again(self) -> None:
        if self.done or not self._stream.is_open:
            return
        before = self._status
        answer = self._now()
        if self._status != before:
            self._send(answer)

    def _finish(self) -> None:
        if self._poll is not None:
            self._poll.cancel()
            self._poll = None
        super()._finish()


def watch(server: Server, stream: ServerStream, methods: Methods) -> HealthWatch:
    return HealthWatch(server, stream, methods)
