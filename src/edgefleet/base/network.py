"""The door to the network: HTTP/1.1 out of the standard library, over TCP or a Unix socket."""

import http.client
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import urlsplit

from edgefleet.base.errors import NetworkError, OperatorError

CHUNK_BYTES: Final = 256 << 10
MAX_ANSWER_BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole HTTP answer; header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Download:
    """An HTTP answer whose body is still on its way: read ``chunks`` to its end."""

    status: int
    headers: Mapping[str, str]
    chunks: Iterator[bytes]


class Link(Protocol):
    """A way to one HTTP server. Raises NetworkError when the server cannot be had."""

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | Iterable[bytes] | None = None,
        timeout_s: float = 10.0,
    ) -> Answer:
        """Send one request and wait for the whole answer (at most 16 MiB)."""
        ...

    def download(
        self,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 10.0,
    ) -> Download:
        """GET ``path`` and hand the body over in pieces."""
        ...

    def close(self) -> None:
        """Close the connection; the next request opens a new one."""
        ...


class HttpLink:
    """One kept-alive connection to ``http://host:port`` or ``unix:/path/to/socket``.

    Not for several threads at once: give each its own.
    """

    def __init__(self, url: str) -> None:
        self._connection = _connection(url)
        self.url = url

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | Iterable[bytes] | None = None,
        timeout_s: float = 10.0,
    ) -> Answer:
        answer = self._send(method, path, headers or {}, body, timeout_s)
        data = bytearray()
        try:
            # Never ``read``: told of a chunk of negative size it reads until memory ends.
            while chunk := answer.read1(CHUNK_BYTES):
                data += chunk
                if len(data) > MAX_ANSWER_BYTES:
                    self.close()
                    raise NetworkError("answer_malformed", "The answer is larger than 16 MiB.")
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise _network_error(error, self.url) from error
        if answer.length and method != "HEAD":  # http.client gives a short body without a word
            self.close()
            raise NetworkError("connection_lost", "The answer ended early.")
        answer.close()  # the answer, not the connection: the next request may use it
        return Answer(answer.status, _headers(answer), bytes(data))

    def download(
        self,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 10.0,
    ) -> Download:
        answer = self._send("GET", path, headers or {}, None, timeout_s)
        return Download(answer.status, _headers(answer), self._chunks(answer))

    def close(self) -> None:
        self._connection.close()

    def _chunks(self, answer: http.client.HTTPResponse) -> Iterator[bytes]:
        finished = False
        try:
            while chunk := answer.read1(CHUNK_BYTES):
                yield chunk
            if answer.length:
                raise NetworkError("connection_lost", "The body ended early.")
            finished = True
        except (OSError, http.client.HTTPException) as error:
            raise _network_error(error, self.url) from error
        finally:
            if not finished:
                self.close()

    def _send(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | Iterable[bytes] | None,
        timeout_s: float,
    ) -> http.client.HTTPResponse:
        """Send; once more on a fresh connection if the server had closed the kept one."""
        connection = self._connection
        reused = connection.sock is not None
        if connection.sock is not None:
            connection.sock.settimeout(timeout_s)
        connection.timeout = timeout_s
        try:
            connection.request(method, path, body=body, headers=dict(headers))
            return connection.getresponse()
        except (ConnectionError, http.client.HTTPException) as error:
            self.close()
            if not reused or not (body is None or isinstance(body, bytes)):
                raise _network_error(error, self.url) from error
        except (OSError, ValueError) as error:  # ValueError: a host or a header that cannot be sent
            self.close()
            raise _network_error(error, self.url) from error
        try:
            connection.request(method, path, body=body, headers=dict(headers))
            return connection.getresponse()
        except (OSError, ValueError, http.client.HTTPException) as error:
            self.close()
            raise _network_error(error, self.url) from error


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _connection(url: str) -> http.client.HTTPConnection:
    try:
        parts = urlsplit(url)
        match parts.scheme:
            case "unix":
                return _UnixConnection(parts.path)
            case "http" if parts.hostname:
                return http.client.HTTPConnection(parts.hostname, parts.port or 80)
            case "https" if parts.hostname:
                return http.client.HTTPSConnection(parts.hostname, parts.port or 443)
            case _:
                raise _no_address(url)
    except (ValueError, http.client.InvalidURL) as error:  # a port that is no number, an odd host
        raise _no_address(url) from error


def _no_address(url: str) -> OperatorError:
    return OperatorError(
        "setting_invalid", f"{url!r} is no address.", field="hub", hint="Say http://host:port."
    )


def _headers(answer: http.client.HTTPResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in answer.getheaders()}


def _network_error(error: Exception, url: str) -> NetworkError:
    if isinstance(error, TimeoutError):
        return NetworkError("timeout", f"{url} did not answer in time.")
    if isinstance(error, (ConnectionRefusedError, FileNotFoundError, socket.gaierror)):
        return NetworkError("unreachable", f"Nothing answers at {url}.")
    return NetworkError("connection_lost", f"The connection to {url} broke ({error}).")
