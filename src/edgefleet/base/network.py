"""The interface to the network: the standard library's HTTP/1.1 over TCP or a Unix socket."""

import http.client
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import urljoin, urlsplit

from edgefleet.base.connection import Deadline, TcpConnection, TlsConnection, UnixConnection
from edgefleet.base.errors import NetworkError, OperatorError
from edgefleet.base.proxy import proxy_for

CHUNK_BYTES: Final = 256 << 10
MAX_ANSWER_BYTES: Final = 16 << 20
MAX_REDIRECTS: Final = 5
ANSWER_TIMEOUTS: Final = 30
"""The body of an answer that is returned whole arrives within so many timeouts of its request."""
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_AS_SENT: Final = frozenset({307, 308})  # to be repeated with the same method and body


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

    ``timeout_s`` of a request is its deadline, see ``base.connection``. A redirect within the
    server is followed; for any other the error names the Location. The environment names proxies,
    see ``base.proxy``. Not thread-safe: use one link per thread.
    """

    def __init__(self, url: str, *, answer_bytes: int = MAX_ANSWER_BYTES) -> None:
        """``answer_bytes``: the limit of an answer that is returned whole."""
        self.url = without_secret(url)
        self._answer_bytes = answer_bytes
        self._deadline = Deadline()
        self._connection, self._base, self._proxy_headers = _connection(url, self._deadline)
        self._answer: http.client.HTTPResponse | None = None  # the last one

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
        self._deadline.end_within(ANSWER_TIMEOUTS * timeout_s)
        try:
            # Not ``read``: after a chunk header with a negative size it reads without bound.
            while chunk := answer.read1(CHUNK_BYTES):
                data += chunk
                self._deadline.moved(len(chunk))
                if len(data) > self._answer_bytes:
                    self.close()
                    raise NetworkError(
                        "answer_malformed", f"The answer has more than {self._answer_bytes} bytes."
                    )
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
                self._deadline.moved(len(chunk))
                began = time.monotonic()
                yield chunk
                self._deadline.waited(time.monotonic() - began)
            if answer.length:
                raise NetworkError(
                    "connection_lost", "The connection closed before the end of the body."
                )
            answer.close()
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
        """Send the request and return the head of the answer. Follows redirects of the server."""
        self._deadline.start(timeout_s)
        for _ in range(MAX_REDIRECTS):
            answer = self._send_once(method, path, headers, body)
            location = answer.getheader("location", "")
            if answer.status not in _REDIRECTS or not location:
                return answer
            self.close()  # without reading the body
            target = _target(f"{self.url.rstrip('/')}{path}", location)
            is_same = _origin(target) == _origin(self.url)
            may_repeat = method in ("GET", "HEAD") or (
                answer.status in _AS_SENT and (body is None or isinstance(body, bytes))
            )
            if not is_same or not may_repeat:
                raise NetworkError("redirected", f"{self.url} redirects to {target[:200]}.")
            parts = urlsplit(target)
            path = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
        raise NetworkError("redirected", f"{self.url} redirects in a circle, to {path[:200]}.")

    def _send_once(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | Iterable[bytes] | None,
    ) -> http.client.HTTPResponse:
        """Send the request. Retries once if the server had closed the kept-alive connection."""
        if self._answer is not None and not self._answer.isclosed():
            self.close()  # an answer that was not read to its end would mix with the next
        connection = self._connection
        reused = connection.sock is not None
        all_headers = {**headers, **self._proxy_headers}
        try:
            connection.request(method, self._base + path, body=body, headers=all_headers)
            self._answer = connection.getresponse()
        except ConnectionError as error:
            self.close()
            if not reused or not (body is None or isinstance(body, bytes)):
                raise _network_error(error, self.url) from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            self.close()  # ValueError: an invalid host or header
            raise _network_error(error, self.url) from error
        else:
            return self._answer
        try:
            connection.request(method, self._base + path, body=body, headers=all_headers)
            self._answer = connection.getresponse()
        except (OSError, ValueError, http.client.HTTPException) as error:
            self.close()
            raise _network_error(error, self.url) from error
        return self._answer


def _connection(
    url: str, deadline: Deadline
) -> tuple[http.client.HTTPConnection, str, Mapping[str, str]]:
    """The connection, what precedes a path in a request, and the headers for a proxy."""
    try:
        parts = urlsplit(url)
        if parts.scheme == "unix":
            return UnixConnection(parts.path, deadline), "", {}
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise _no_address(url)
        proxy, port = proxy_for(parts), parts.port
        if parts.scheme == "http":
            if proxy is None:
                return TcpConnection(parts.hostname, port or 80, deadline), "", {}
            base = f"http://{parts.netloc.rpartition('@')[2]}"
            return TcpConnection(proxy.host, proxy.port, deadline), base, proxy.headers
        if proxy is None:
            return TlsConnection(parts.hostname, port or 443, deadline), "", {}
        connection = TlsConnection(proxy.host, proxy.port, deadline)
        connection.set_tunnel(parts.hostname, port or 443, dict(proxy.headers))
    except (ValueError, http.client.InvalidURL) as error:  # an invalid port or host
        raise _no_address(url) from error
    return connection, "", {}


def without_secret(url: str) -> str:
    """``url`` without a user and password, for people."""
    begin, slashes, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{begin}{slashes}{host.rpartition('@')[2]}{slash}{path}"


def _target(url: str, location: str) -> str:
    """The address in a Location header, which may be relative. As it is if it is none."""
    try:
        return urljoin(url, location)
    except ValueError:
        return location


def _origin(url: str) -> tuple[str, str | None, int | None]:
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return "", None, None
    return parts.scheme, parts.hostname, port


def _no_address(url: str) -> OperatorError:
    return OperatorError(
        "setting_invalid",
        f"{without_secret(url)!r} is not a valid address.",
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
