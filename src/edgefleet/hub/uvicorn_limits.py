"""HTTP of the main listener: uvicorn, with limits on unauthenticated clients.

A new connection is not authenticated. So a request head is limited in time and size, and the number
of connections is limited so that open files remain for check-ins and artifacts.
"""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from edgefleet.hub.limits import OPERATOR_HEAD_BYTES, OPERATOR_HEAD_S


def bounded_to(connections: int) -> type[HttpToolsProtocol]:
    """The protocol class of a listener with this connection limit."""

    class Bounded(BoundedProtocol):
        most_connections = connections

    return Bounded


class BoundedProtocol(HttpToolsProtocol):
    """One connection. A connection that exceeds a limit is aborted without an answer."""

    most_connections = 1
    _late: asyncio.TimerHandle | None = None  # the timeout of an incomplete head
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in uvicorn
        super().connection_made(transport)
        if len(self.connections) > self.most_connections:
            transport.abort()
        else:
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._have_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.transport.is_closing():
            return
        idle: bool = getattr(
            self.cycle, "response_complete", True
        )  # uvicorn has no cycle before the first request
        if self._late is None and idle:
            self._expect_head()  # an empty line ends uvicorn's timeout without a request
        if self._late is not None:
            self._head_bytes += len(data)
            if self._head_bytes > OPERATOR_HEAD_BYTES:
                self.transport.abort()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._late is None:
            self._expect_head()

    def on_headers_complete(self) -> None:
        self._have_head()
        super().on_headers_complete()

    def _expect_head(self) -> None:
        self._head_bytes = 0
        self._late = self.loop.call_later(OPERATOR_HEAD_S, self.transport.abort)

    def _have_head(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
