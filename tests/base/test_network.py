import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from edgefleet.base.errors import NetworkError, OperatorError
from edgefleet.base.network import HttpLink


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    connections: ClassVar[set[object]] = set()
    sent_mib: ClassVar[int] = 0

    def do_GET(self) -> None:
        Handler.connections.add(self.client_address)
        if self.path == "/short":
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"only this")
            self.close_connection = True
            return
        if self.path == "/negative":  # a chunk of negative size, then endless bytes
            self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n")
            self.close_connection = True
            with contextlib.suppress(OSError):
                for _ in range(1024):
                    self.wfile.write(bytes(1 << 20))
                    Handler.sent_mib += 1
            return
        if self.path == "/drop":
            self.close_connection = True
            return
        body = b"x" * 700_000 if self.path == "/big" else self.path.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = self.path == "/last"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(201)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[::-1])

    def log_message(self, *args: object) -> None:
        del args


@pytest.fixture
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Handler.connections.clear()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_one_connection_serves_many_requests(url: str) -> None:
    link = HttpLink(url)
    assert [link.request("GET", f"/{n}").body for n in range(3)] == [b"/0", b"/1", b"/2"]
    assert link.request("POST", "/", body=b"abc").body == b"cba"
    assert len(Handler.connections) == 1
    link.close()


def test_a_kept_connection_that_the_server_closed_is_opened_again(url: str) -> None:
    link = HttpLink(url)
    assert link.request("GET", "/last").status == 200
    assert link.request("GET", "/next").body == b"/next"
    link.close()


def test_a_body_that_ends_early_is_an_error_not_a_short_file(url: str) -> None:
    link = HttpLink(url)
    with pytest.raises(NetworkError) as caught:
        list(link.download("/short").chunks)
    assert caught.value.code == "connection_lost"
    with pytest.raises(NetworkError):
        link.request("GET", "/short")


def test_a_download_comes_in_pieces(url: str) -> None:
    link = HttpLink(url)
    pieces = list(link.download("/big").chunks)
    assert sum(map(len, pieces)) == 700_000
    assert len(pieces) > 1
    assert link.request("GET", "/after").body == b"/after"
    link.close()


def test_a_server_that_hangs_up_is_a_lost_connection(url: str) -> None:
    link = HttpLink(url)
    with pytest.raises(NetworkError) as caught:
        link.request("GET", "/drop")
    assert caught.value.code == "connection_lost"


def test_nobody_there_is_unreachable() -> None:
    with pytest.raises(NetworkError) as caught:
        HttpLink("http://127.0.0.1:1").request("GET", "/")
    assert caught.value.code == "unreachable"


@pytest.mark.parametrize("url", ["ftp://x", "localhost:80", "http://"])
def test_what_is_no_address_is_said(url: str) -> None:
    with pytest.raises(OperatorError) as caught:
        HttpLink(url)
    assert caught.value.code == "setting_invalid"


def test_a_chunk_of_negative_size_does_not_fill_the_memory(url: str) -> None:
    Handler.sent_mib = 0
    with pytest.raises(NetworkError):
        HttpLink(url).request("GET", "/negative")
    assert Handler.sent_mib < 64


@pytest.mark.parametrize(
    "odd", ["http://hub:port", "http://[::1", "http://hub:99999", "http://a b/", "ftp://hub", ""]
)
def test_an_odd_address_is_a_typed_error(odd: str) -> None:
    with pytest.raises(OperatorError) as refused:
        HttpLink(odd)
    assert refused.value.code == "setting_invalid"


@pytest.mark.parametrize("odd", ["http://a..b:1", f"http://{'a' * 64}.example:1"])
def test_a_host_that_cannot_be_looked_up_is_a_typed_error(odd: str) -> None:
    with pytest.raises(NetworkError):
        HttpLink(odd).request("GET", "/")


def test_a_header_that_cannot_be_sent_is_a_typed_error(url: str) -> None:
    with pytest.raises(NetworkError):
        HttpLink(url).request("GET", "/", headers={"Authorization": "Bearer a\nb"})
