"""Bounds of one listener. Each may be set; the defaults suit small JSON messages."""

from dataclasses import dataclass
from typing import Final

FRAGMENT_COST_BYTES: Final = 64  # what a piece of a body costs in memory beyond its bytes
CHUNKING_FACTOR: Final = 8  # bytes on the wire for a byte of a chunked body, at most
LARGE_BODY_BYTES: Final = 64 << 10  # from here on a body is worth saving a copy of
FIRST_BODY_BYTES: Final = 256 << 10  # room for a large body at first, whatever was announced
RECEIVE_BYTES: Final = 256 << 10  # read at once
BACKLOG: Final = 1024


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What a client may use. Whoever goes past a bound gets a typed answer and is closed."""

    head_bytes: int = 16 << 10  # request line and headers: 431
    body_bytes: int = 1 << 20  # one body, chunked or not: 413
    held_bytes: int = 64 << 20  # all bodies in memory at one time: 503
    head_s: float = 10.0  # from the first byte of a request to the end of its head: 408
    body_s: float = 30.0  # from there to the end of its body: 408
    idle_s: float = 75.0  # without a request: closed
    write_s: float = 30.0  # without the client reading any of its answer: closed
    linger_s: float = 2.0  # how long a refused client may go on sending before it is cut off
    drain_s: float = 10.0  # how long ``Listener.close`` waits for requests under way
    connections: int = 10_000  # one more gets 503
    pipelined: int = 16  # requests of one connection that wait their turn before reading pauses
