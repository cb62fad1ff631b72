"""HTTP of the main listener: uvicorn, with limits on its clients.

A new connection is not authenticated. So a request head is limited in time and size, and the number
of connections is limited so that open files remain for check-ins and artifacts. A client that does
not read its answer is disconnected.
"""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from edgefleet.base.places import peer_of
from edgefleet.hub.connection_places import ConnectionPlaces, Worth
from edgefleet.hub.exchange import EXCHANGE, Exchange
from edgefleet.hub.file_sending import reset
from edgefleet.hub.limits import (
    OPERATOR_HEAD_BYTES,
    OPERATOR_HEAD_S,
    OPERATOR_WRITE_S,
    PEER_SHARE,
)
from edgefleet.security.principals import SIGNED_IN


def bounded_to(connections: int) -> type[HttpToolsProtocol]:
    """The protocol class of a listener with this connection limit."""
    of_peer = max(1, int(connections * PEER_SHARE))

    class Bounded(BoundedProtocol):
        places = ConnectionPlaces(connections, of_peer)

    return Bounded


class BoundedProtocol(HttpToolsProtocol):
    """One connection. A connection that exceeds a limit is aborted without an answer."""

    places = ConnectionPlaces(1, 1)
    peer = ""
    _late: asyncio.TimerHandle | None = None  # the timeout of an incomplete head
    _head_bytes = 0
    _stalled: asyncio.TimerHandle | None = None  # the timeout of a client that does not read
    _unsent_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in uvicorn
        super().connection_made(transport)
        self.peer = peer_of(transport.get_extra_info("peername"))
        leaving = self.places.enter(self)
        if isinstance(leaving, BoundedProtocol):
            leaving.transport.abort()
        if leaving is not self:
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self.places.remove(self)
        self._have_head()
        self._reads_again()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._late is None and self.is_idle():
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
        cycle = self.cycle
        exchange = Exchange(self, self.places, self.transport, lambda size: _sent(cycle, size))
        self.scope |= {  # type: ignore[misc] # keys of our own
            EXCHANGE: exchange,
            SIGNED_IN: lambda: self.places.shown(self, Worth.PERSON),
        }

    def pause_writing(self) -> None:
        super().pause_writing()
        self._expect_reading()

    def resume_writing(self) -> None:
        self._reads_again()
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        if self.transport.get_write_buffer_size():
            reset(self.transport)  # the client has not read its last answer
        super().timeout_keep_alive_handler()

    def is_idle(self) -> bool:
        """Whether no request is in progress."""
        # uvicorn has no cycle before the first request
        return bool(getattr(self.cycle, "response_complete", True))

    def _expect_head(self) -> None:
        self._head_bytes = 0
        self._late = self.loop.call_later(OPERATOR_HEAD_S, self.transport.abort)

    def _have_head(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _expect_reading(self) -> None:
        self._unsent_bytes = self.transport.get_write_buffer_size()
        self._stalled = self.loop.call_later(OPERATOR_WRITE_S, self._check_reading)

    def _check_reading(self) -> None:
        if self.transport.get_write_buffer_size() >= self._unsent_bytes:
            reset(self.transport)
        else:
            self._expect_reading()

    def _reads_again(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None


def _sent(cycle: RequestResponseCycle, size: int) -> None:
    """Uvicorn counts the bytes of a body, to compare them with its Content-Length."""
    cycle.expected_content_length -= size
