"""Connections of the HTTP client, with one deadline for everything that a request does.

Looking up the name, connecting, sending and receiving share the deadline. Each byte that is sent,
and each byte of the body of an answer, moves it by 1 / LEAST_BYTES_PER_S seconds, but never further
than the request's timeout from now: a transfer of any size may take its time, and a peer that sends
one byte now and then is cut off. Other bytes do not move it: headers, interim answers, chunk sizes
and trailers have no end that the peer announces.
"""

import http.client
import math
import queue
import socket
import ssl
import threading
import time
from typing import Any, Final

LEAST_BYTES_PER_S: Final = 256
_NUMERIC: Final = socket.AI_NUMERICHOST


class Deadline:
    """The time at which the request in progress fails."""

    def __init__(self) -> None:
        self._timeout_s = 0.0
        self._at = 0.0
        self._end = math.inf

    def start(self, timeout_s: float) -> None:
        """A request begins."""
        self._timeout_s = timeout_s
        self._at = time.monotonic() + timeout_s
        self._end = math.inf

    def end_within(self, seconds: float) -> None:
        """The rest of the request takes no longer than this, whatever is transferred."""
        self._end = time.monotonic() + seconds

    def left_s(self) -> float:
        """The seconds that are left. Raises TimeoutError if there are none."""
        left = self._at - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def moved(self, size_bytes: int) -> None:
        """Bytes were sent, or are bytes of a body that was received."""
        latest = min(self._end, time.monotonic() + self._timeout_s)
        self._at = min(latest, self._at + size_bytes / LEAST_BYTES_PER_S)

    def waited(self, seconds: float) -> None:
        """The client itself was busy so long."""
        self._at += seconds


class _Socket(socket.socket):
    deadline: Deadline

    def recv_into(self, *args: Any, **options: Any) -> int:
        self.settimeout(self.deadline.left_s())
        return super().recv_into(*args, **options)

    def sendall(self, data: Any, *flags: Any) -> None:
        self.settimeout(self.deadline.left_s())
        super().sendall(data, *flags)
        self.deadline.moved(memoryview(data).nbytes)


class _TlsSocket(ssl.SSLSocket):
    deadline: Deadline

    def recv_into(self, *args: Any, **options: Any) -> int:
        self.settimeout(self.deadline.left_s())
        return super().recv_into(*args, **options)

    def send(self, data: Any, flags: int = 0) -> int:
        self.settimeout(self.deadline.left_s())
        size = super().send(data, flags)
        self.deadline.moved(size)
        return size


class TcpConnection(http.client.HTTPConnection):
    """A connection to ``host``, whose requests have ``deadline``."""

    def __init__(self, host: str, port: int, deadline: Deadline) -> None:
        super().__init__(host, port)
        self._deadline = deadline
        self._create_connection = self._open  # called by ``connect``

    def _open(self, address: tuple[str, int], *_: object) -> socket.socket:
        return _connected(address, self._deadline)


class TlsConnection(http.client.HTTPSConnection):
    """The same over TLS."""

    def __init__(self, host: str, port: int, deadline: Deadline) -> None:
        context = ssl.create_default_context()
        context.set_alpn_protocols(["http/1.1"])
        context.sslsocket_class = _TlsSocket
        super().__init__(host, port, context=context)
        self._deadline = deadline
        self._create_connection = self._open  # called by ``connect``

    def connect(self) -> None:
        super().connect()
        assert isinstance(self.sock, _TlsSocket)  # noqa: S101 - of the context above
        self.sock.deadline = self._deadline

    def _open(self, address: tuple[str, int], *_: object) -> socket.socket:
        return _connected(address, self._deadline)


class UnixConnection(http.client.HTTPConnection):
    """A connection to a Unix socket."""

    def __init__(self, path: str, deadline: Deadline) -> None:
        super().__init__("localhost")
        self._path = path
        self._deadline = deadline

    def connect(self) -> None:
        made = _Socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.deadline = self._deadline
        self.sock = made
        made.settimeout(self._deadline.left_s())
        made.connect(self._path)


def _connected(address: tuple[str, int], deadline: Deadline) -> socket.socket:
    """A socket that is connected to the first address of the host that answers."""
    found = _addresses(address, deadline)
    failure: OSError = OSError("the name has no address")
    for number, (family, place) in enumerate(found):
        made = _Socket(family, socket.SOCK_STREAM)
        made.deadline = deadline
        try:
            made.settimeout(deadline.left_s() / (len(found) - number))
            made.connect(place)
        except OSError as error:
            made.close()
            failure = error
        else:
            return made
    raise failure


def _addresses(address: tuple[str, int], deadline: Deadline) -> list[tuple[int, Any]]:
    """The addresses of the host. A thread asks, as the system's resolver has no deadline."""
    try:
        return _resolved(address, _NUMERIC)
    except socket.gaierror:
        pass
    answers: queue.SimpleQueue[list[tuple[int, Any]] | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(_resolved(address, 0))
        except Exception as error:  # noqa: BLE001 - raised again in the caller
            answers.put(error)

    threading.Thread(target=ask, name="resolve", daemon=True).start()
    try:
        answer = answers.get(timeout=deadline.left_s())
    except queue.Empty:
        raise TimeoutError from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _resolved(address: tuple[str, int], flags: int) -> list[tuple[int, Any]]:
    found = socket.getaddrinfo(*address, 0, socket.SOCK_STREAM, 0, flags)
    return [(int(family), place) for family, _, _, _, place in found]
