"""The interface to the network: the standard library's HTTP/1.1 over TCP or a Unix socket."""

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
    """A whole HTTP response. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Download:
    """An HTTP response whose body is still being received. Read ``chunks`` to the end."""

    status: int
    headers: Mapping[str, str]
    chunks: Iterator[bytes]


class Link(Protocol):
    """A client of one HTTP server.

    Raises NetworkError if the server cannot be reached or its answer cannot be read.
    """

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | Iterable[bytes] | None = None,
        timeout_s: float = 10.0,
    ) -> Answer:
        """Send one request and return the whole answer (at most 16 MiB)."""
        ...

    def download(
        self,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 10.0,
    ) -> Download:
        """GET ``path``. Returns the body in pieces."""
        ...

    def close(self) -> None:
        """Close the connection. The next request opens a new one."""
        ...


class HttpLink:
    """One kept-alive connection to ``http://host:port`` or ``unix:/path/to/socket``.

    Not thread-safe: use one link per thread.
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
            # Not ``read``: after a chunk header with a negative size it reads without bound.
            while chunk := answer.read1(CHUNK_BYTES):
                data += chunk
                if len(data) > MAX_ANSWER_BYTES:
                    self.close()
                    raise NetworkError("answer_malformed", "The answer is larger than 16 MiB.")
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise _network_error(error, self.url) from error
        if answer.length and method != "HEAD":  # http.client returns a short body without an error
            self.close()
            raise NetworkError(
                "connection_lost", "The connection closed before the end of the answer."
            )
        answer.close()  # closes the answer only; the next request reuses the connection
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
                raise NetworkError(
                    "connection_lost", "The connection closed before the end of the body."
                )
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
        """Send the request. Retries once if the server had closed the kept-alive connection."""
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
        except (OSError, ValueError) as error:  # ValueError: an invalid host or header
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
    except (ValueError, http.client.InvalidURL) as error:  # an invalid port or host
        raise _no_address(url) from error


def _no_address(url: str) -> OperatorError:
    return OperatorError(
        "setting_invalid",
        f"{url!r} is not a valid address.",
        field="hub",
        hint="Give an address such as http://host:port.",
    )


def _headers(answer: http.client.HTTPResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in answer.getheaders()}


def _network_error(error: Exception, url: str) -> NetworkError:
    if isinstance(error, TimeoutError):
        return NetworkError("timeout", f"{url} did not answer in time.")
    if isinstance(error, (ConnectionRefusedError, FileNotFoundError, socket.gaierror)):
        return NetworkError("unreachable", f"No server answers at {url}.")
    return NetworkError("connection_lost", f"The connection to {url} broke ({error}).")
