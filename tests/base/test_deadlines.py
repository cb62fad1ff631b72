"""A peer that drips, redirects, or stands between: each request ends, and goes out once."""

import contextlib
import socket
import threading
import time
from collections.abc import Generator
from urllib.parse import urlsplit

import pytest

from edgefleet.base.connection import LEAST_BYTES_PER_S
from edgefleet.base.errors import NetworkError, OperatorError
from edgefleet.base.network import HttpLink
from edgefleet.base.proxy import Proxy, proxy_for

OK = b"HTTP/1.1 200 OK\r\n"
GUARD_S = 60.0


class Peer:
    """A server that answers each request with raw bytes. ``answers`` are by path."""

    def __init__(self) -> None:
        self.answers: dict[str, list[bytes | float]] = {}  # a number is a pause in seconds
        self.asked: list[str] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.stopped = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self.stopped.set()
        self._listening.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                made, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(made,), daemon=True).start()

    def _serve(self, made: socket.socket) -> None:
        with contextlib.suppress(OSError), made, made.makefile("rb") as lines:
            while line := lines.readline():
                self.asked.append(line.decode().strip())
                size = 0
                while head := lines.readline().strip():
                    name, _, value = head.decode().partition(":")
                    size = int(value) if name.lower() == "content-length" else size
                lines.read(size)
                path = line.split()[1].decode()
                for part in self.answers.get(path, [OK + b"content-length: 2\r\n\r\nok"]):
                    if isinstance(part, bytes):
                        made.sendall(part)
                    else:
                        self.stopped.wait(part)


@pytest.fixture
def peer() -> Generator[Peer]:
    running = Peer()
    yield running
    running.close()


def drip(data: bytes) -> list[bytes | float]:
    """One byte each 20 ms: each arrives long before a timeout that counts from the last one."""
    return [part for byte in data for part in (bytes([byte]), 0.02)]


@pytest.mark.parametrize(
    "answer",
    [
        drip(OK + b"content-length: 9000\r\n\r\n" + b"x" * 9000),
        [OK + b"content-length: 9000\r\n\r\n", *drip(b"x" * 9000)],
        [OK + b"transfer-encoding: chunked\r\n\r\n", *drip(b"1\r\nx\r\n" * 2000)],
    ],
    ids=["head", "body", "chunks"],
)
def test_a_server_that_drips_is_cut_off(peer: Peer, answer: list[bytes | float]) -> None:
    peer.answers["/drip"] = answer
    failed: list[str] = []

    def ask() -> None:
        for take in (
            lambda link: link.request("GET", "/drip", timeout_s=0.3),
            lambda link: list(link.download("/drip", timeout_s=0.3).chunks),
        ):
            with pytest.raises(NetworkError) as caught:
                take(HttpLink(peer.url))
            failed.append(caught.value.code)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(GUARD_S)
    assert failed == ["timeout", "timeout"], "the whole answer takes three minutes"


@pytest.mark.parametrize(
    "answer",
    [
        [b"HTTP/1.1 100 Continue\r\n\r\n" * 20, 0.01] * 3000,
        [OK + b"transfer-encoding: chunked\r\n\r\n0\r\n", *[b"x: y\r\n" * 100, 0.01] * 3000],
        [OK + b"transfer-encoding: chunked\r\n\r\n", *[b"001;" + b"z" * 4000, 0.01] * 3000],
    ],
    ids=["interim answers", "trailers", "chunk size"],
)
def test_bytes_without_content_do_not_hold_the_link(
    peer: Peer, answer: list[bytes | float]
) -> None:
    peer.answers["/flood"] = answer
    for take in (
        lambda link: link.request("GET", "/flood", timeout_s=0.3),
        lambda link: list(link.download("/flood", timeout_s=0.3).chunks),
    ):
        with pytest.raises(NetworkError):
            take(HttpLink(peer.url))


def test_an_answer_that_is_returned_whole_has_an_end(peer: Peer) -> None:
    piece = b"x" * LEAST_BYTES_PER_S
    peer.answers["/slow"] = [OK + b"\r\n", *[piece, 0.01] * 3000]
    with pytest.raises(NetworkError) as caught:
        HttpLink(peer.url).request("GET", "/slow", timeout_s=0.03)
    assert caught.value.code == "timeout"


def test_a_slow_consumer_is_not_the_servers_fault(peer: Peer) -> None:
    head = b"content-length: %d\r\n\r\n" % (2 << 20)
    peer.answers["/big"] = [OK + head, bytes(2 << 20)]
    taken = 0
    for chunk in HttpLink(peer.url).download("/big", timeout_s=0.5).chunks:
        taken += len(chunk)
        if taken == len(chunk):
            time.sleep(0.7)
    assert taken == 2 << 20


def test_a_server_that_is_fast_enough_may_take_longer_than_the_timeout(peer: Peer) -> None:
    piece = bytes(LEAST_BYTES_PER_S)
    peer.answers["/slow"] = [OK + b"content-length: %d\r\n\r\n" % (8 * len(piece))]
    peer.answers["/slow"] += [part for _ in range(8) for part in (piece, 0.1)]
    assert len(HttpLink(peer.url).request("GET", "/slow", timeout_s=0.4).body) == 8 * len(piece)


def test_a_request_after_a_download_goes_out_once(peer: Peer) -> None:
    link = HttpLink(peer.url)
    assert b"".join(link.download("/file").chunks) == b"ok"
    assert link.request("GET", "/after").body == b"ok"
    link.download("/unread")
    assert link.request("GET", "/last").body == b"ok"
    assert [line.split()[1] for line in peer.asked] == ["/file", "/after", "/unread", "/last"]


def redirect(status: int, location: str) -> list[bytes | float]:
    head = f"HTTP/1.1 {status} Moved\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n"
    return [head.encode()]


@pytest.mark.parametrize("location", ["/new?a=1", "new?a=1", "http://127.0.0.1:{port}/new?a=1"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_within_the_server_is_followed(peer: Peer, status: int, location: str) -> None:
    peer.answers["/old"] = redirect(status, location.format(port=peer.port))
    link = HttpLink(f"{peer.url}/")
    assert link.request("GET", "/old").body == b"ok"
    assert b"".join(link.download("/old").chunks) == b"ok"
    assert peer.asked[1] == "GET /new?a=1 HTTP/1.1"


@pytest.mark.parametrize(
    ("location", "named"),
    [
        ("https://127.0.0.1:{port}/", "redirects to https://127.0.0.1:"),
        ("http://portal.example/login", "redirects to http://portal.example/login"),
        ("/old", "in a circle"),
        ("http://[bad", "redirects to"),
    ],
)
def test_any_other_redirect_is_named(peer: Peer, location: str, named: str) -> None:
    peer.answers["/old"] = redirect(302, location.format(port=peer.port))
    with pytest.raises(NetworkError, match=named) as caught:
        HttpLink(peer.url).request("GET", "/old", headers={"Authorization": "Bearer secret"})
    assert caught.value.code == "redirected"


def test_a_report_is_not_sent_to_the_target_of_a_redirect_as_another_request(peer: Peer) -> None:
    peer.answers["/report"] = redirect(302, "/other")
    with pytest.raises(NetworkError, match="redirects to"):
        HttpLink(peer.url).request("POST", "/report", body=b"{}")
    assert len(peer.asked) == 1


def test_a_proxy_gets_the_whole_address(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://user:p%40ss@127.0.0.1:{peer.port}")
    target = "http://hub.example:8400/health"
    peer.answers[target] = [OK + b"content-length: 5\r\n\r\nproxy"]
    assert HttpLink("http://hub.example:8400/").request("GET", "/health").body == b"proxy"
    assert peer.asked == [f"GET {target} HTTP/1.1"]
    assert HttpLink(peer.url).request("GET", "/").body == b"ok", "loopback is asked directly"


def test_a_proxy_is_asked_for_a_tunnel_to_a_hub_with_tls(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", f"127.0.0.1:{peer.port}")
    peer.answers["hub.example:443"] = [b"HTTP/1.1 502 No\r\n\r\n"]
    with pytest.raises(NetworkError, match="502"):
        HttpLink("https://hub.example").request("GET", "/health")
    assert peer.asked[0].startswith("CONNECT hub.example:443 ")


@pytest.mark.parametrize(
    ("no_proxy", "is_direct"),
    [
        ("", False), ("*", True), ("hub.example", True), ("example", True), (".example", True),
        ("*.example", True), ("ub.example", False), ("hub.example:8400", True),
        ("hub.example:80", False), ("other, HUB.example ", True), ("10.0.0.0/8", False),
    ],
)  # fmt: skip
def test_no_proxy_names_hosts(no_proxy: str, is_direct: bool) -> None:
    environ = {"HTTP_PROXY": "http://proxy:3128", "NO_PROXY": no_proxy}
    found = proxy_for(urlsplit("http://hub.example:8400"), environ)
    assert found == (None if is_direct else Proxy("proxy", 3128, {}))


def test_no_proxy_names_networks() -> None:
    environ = {"ALL_PROXY": "proxy", "no_proxy": "10.0.0.0/8,fd00::/8"}
    hosts = ("http://10.1.2.3:8400", "http://[fd00::1]", "http://11.1.2.3", "http://[::1]")
    found = [proxy_for(urlsplit(host), environ) for host in hosts]
    assert [one is None for one in found] == [True, True, False, True]


@pytest.mark.parametrize("proxy", ["socks5://proxy:1080", "https://proxy", "http://proxy:port"])
def test_a_proxy_that_is_not_supported_is_refused_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy)
    with pytest.raises(OperatorError, match="not an HTTP proxy") as refused:
        HttpLink("http://hub.example")
    assert (refused.value.code, refused.value.field) == ("setting_invalid", "HTTP_PROXY")
