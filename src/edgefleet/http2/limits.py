"""Limits of one HTTP/2 listener, and the constants of the protocol."""

from dataclasses import dataclass
from typing import Final

RECEIVE_BYTES: Final = 256 << 10  # of one read
BACKLOG: Final = 1024
REFUSED: Final = 64  # refused connections that stay open to be read; above: closed at once
CONTINUATIONS: Final = 16  # frames of one header block after its first
RESETS_REMEMBERED: Final = 256  # streams that were reset here; frames under way are ignored
BLOCKS_REMEMBERED: Final = 64  # decoded header blocks of one connection
SETTINGS_IN_FRAME: Final = 64


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits on a client. A client that exceeds one is refused with an error code of HTTP/2.

    The budgets are for frames that cost work without carrying a request: a connection has
    ``*_burst`` of them, and gets ``*_per_s`` back each second.
    """

    head_bytes: int = 16 << 10  # a header block, compressed, and the list that it decodes to
    concurrent_streams: int = 128  # of one connection, until their handlers have ended
    frame_bytes: int = 256 << 10  # payload of one frame that the client may send
    stream_window_bytes: int = 1 << 20  # of one body, before the handler has taken the bytes
    window_bytes: int = 4 << 20  # of all bodies of one connection
    unsent_bytes: int = 16 << 20  # replies that wait for the client; above: no new streams
    write_buffer_bytes: int = 1 << 20  # given to the socket at one time
    resets_burst: int = 1_000  # streams that the client opens and resets
    resets_per_s: int = 200
    control_burst: int = 4_000  # PING, SETTINGS, PRIORITY, WINDOW_UPDATE, empty and unknown frames
    control_per_s: int = 1_000
    control_per_request: int = 8  # added by each request to the budget
    errors: int = 1_000  # streams of one connection that break the protocol; then it is closed
    head_s: float = 10.0  # for the preface, and for a header block from its first frame to its last
    body_s: float = 30.0  # without a byte of a body that the client has begun
    idle_s: float = 300.0  # without a stream; then the connection is closed
    write_s: float = 30.0  # without progress in sending a reply; then its stream is reset
    drain_s: float = 10.0  # how long ``Listener.close`` waits for streams in progress
    connections: int = 1_000  # above: refused
    peer_connections: int = 0  # of one peer address, 0 is no limit; above: refused
    reserved_connections: int = 0  # beyond ``connections``, for urgent requests only
    reserved_idle_s: float = 2.0  # of such a connection, without a stream
