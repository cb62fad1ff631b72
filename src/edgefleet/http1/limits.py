"""Limits of one listener. The defaults suit small JSON messages."""

from dataclasses import dataclass
from typing import Final

FRAGMENT_COST_BYTES: Final = 64  # memory of one piece of a body, beyond its bytes
CHUNKING_FACTOR: Final = 8  # bytes on the wire per byte of a chunked body, at most
LARGE_BODY_BYTES: Final = 64 << 10  # bodies of this size or more are not copied
FIRST_BODY_BYTES: Final = 256 << 10  # first buffer of a large body, for any announced size
ANSWER_HEAD_BYTES: Final = 64 << 10  # of an answer that a client here reads
ANSWER_BODY_BYTES: Final = 256 << 20  # the same for its body
CHUNK_LINE_BYTES: Final = 256  # the size of a chunk, with its extensions
RECEIVE_BYTES: Final = 64 << 10  # of one read; the rest of a large body goes to its own buffer
WHOLE_BYTES: Final = 16 << 10  # a request up to this size can bypass the parser and the queue
BACKLOG: Final = 1024
REFUSED: Final = 64  # refused connections that stay open to be read; above: closed at once


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits on a client. A client that exceeds one gets a typed answer and is disconnected."""

    head_bytes: int = 16 << 10  # request line and headers: 431
    body_bytes: int = 1 << 20  # one body, chunked or not: 413
    buffered_bytes: int = 64 << 20  # all bodies in memory at one time: 503
    head_s: float = 10.0  # from the first byte of a request to the end of its head: 408
    body_s: float = 30.0  # from the end of the head to the end of the body: 408
    idle_s: float = 75.0  # without a request; then the connection is closed
    write_s: float = 30.0  # without progress in sending an answer; then the connection is closed
    linger_s: float = 2.0  # time in which a refused client can read the refusal
    drain_s: float = 10.0  # how long ``Listener.close`` waits for requests in progress
    connections: int = 10_000  # above: 503
    peer_connections: int = 0  # of one peer address, 0 is no limit; above: 503
    reserved_connections: int = 0  # beyond ``connections``, for urgent requests only
    reserved_idle_s: float = 2.0  # of such a connection, without a request
    pipelined: int = 16  # waiting requests of one connection; at this number reading pauses
