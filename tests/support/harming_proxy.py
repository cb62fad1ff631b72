"""A proxy that harms a share of the answers on their way, as bad networks do."""

import contextlib
import http.client
import random
import threading
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

HARMS = ("login page", "wrong byte", "wrong range", "cut", "301", "502")
_PAGE = b"<html><title>Welcome to the hotel</title>Please log in.</html>"


class HarmingProxy:
    """``share`` of the answers are harmed, in one of HARMS each. ``artifact_bytes`` went through."""

    def __init__(self, target: str, seed: int, share: float) -> None:
        self.target = target
        self.share = share
        self.url = ""
        self.artifact_bytes = 0
        self.harmed: list[str] = []
        self.answers = 0
        self._random = random.Random(seed)
        self._lock = threading.Lock()

    def harm(self) -> str:
        """The harm of the next answer. Empty for none."""
        with self._lock:
            self.answers += 1
            if self._random.random() >= self.share:
                return ""
            self.harmed.append(self._random.choice(HARMS))
            return self.harmed[-1]

    def place(self, size: int) -> int:
        """Somewhere in ``size`` bytes."""
        return self._random.randrange(max(1, size))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: HarmingProxy

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        connection = http.client.HTTPConnection(urlsplit(self.proxy.target).netloc, timeout=30)
        with contextlib.closing(connection):
            connection.request(self.command, self.path, body, dict(self.headers.items()))
            answer = connection.getresponse()
            data, headers = answer.read(), dict(answer.getheaders())
        headers["Content-Length"] = str(len(data))
        self._answer(answer.status, headers, data, self.proxy.harm())

    def _answer(self, status: int, headers: dict[str, str], data: bytes, harm: str) -> None:
        sent = data
        match harm:
            case "login page":
                status, sent = 200, _PAGE
                headers = {"Content-Type": "text/html", "Content-Length": str(len(sent))}
            case "wrong byte" if data:
                at = self.proxy.place(len(data))
                sent = data[:at] + bytes([data[at] ^ 0x01]) + data[at + 1 :]
            case "wrong range" if "/artifacts/" in self.path and len(data) > 1:
                shift = 1 + self.proxy.place(len(data) - 1)
                sent = data[shift:] + data[:shift]  # with the header of the right range
                if "Content-Range" in headers and shift % 2:
                    headers["Content-Range"] = f"bytes 0-{len(data) - 1}/{len(data)}"
            case "cut":
                sent = data[: self.proxy.place(len(data))]
                self.close_connection = True
            case "301":
                status, sent = 301, b""
                headers = {"Location": "http://portal.example/login", "Content-Length": "0"}
            case "502":
                status, sent = 502, b"Bad Gateway"
                headers = {"Content-Length": str(len(sent))}
            case _:
                pass
        if "/artifacts/" in self.path and harm not in ("login page", "301", "502"):
            self.proxy.artifact_bytes += len(sent)
        self.send_response(status)
        for name, value in headers.items():
            if name not in ("Server", "Date"):
                self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(sent)

    do_GET = do_POST = _pass_on  # noqa: N815 - the names that http.server calls

    def log_message(self, *_: object) -> None:
        return


@contextlib.contextmanager
def harming_proxy(target: str, *, seed: int, share: float) -> Generator[HarmingProxy]:
    """A running proxy in front of ``target``."""
    proxy = HarmingProxy(target, seed, share)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": proxy}))
    server.daemon_threads = True
    proxy.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
