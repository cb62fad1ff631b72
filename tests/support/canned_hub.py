"""A hub's operator plane with answers set by a test, and a log of the requests."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from edgefleet.base.errors import EdgefleetError
from edgefleet.protocol.wire import encode, problem

TOKEN = "efo_canned"


@dataclass(frozen=True)
class Asked:
    """One received request. ``path`` is still quoted."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes


@dataclass
class CannedHub:
    """``answers`` by (method, path). Of a list each answer is used once, except the last."""

    url: str
    answers: dict[tuple[str, str], object] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    def put(self, method: str, path: str, *answers: object) -> None:
        """Answer with a wire type, bytes, a typed error, or a bare status."""
        self.answers[method, path] = list(answers)

    def answer(self, asked: Asked) -> tuple[int, bytes]:
        self.asked.append(asked)
        said = self.answers.get((asked.method, asked.path), [404])
        assert isinstance(said, list)
        chosen = said.pop(0) if len(said) > 1 else said[0]
        match chosen:
            case int():
                return chosen, b""
            case bytes():
                return 200, chosen
            case EdgefleetError():
                return chosen.status, encode(problem(chosen))
            case _:
                return 200, encode(chosen)


@contextmanager
def canned_hub() -> Iterator[CannedHub]:
    """A hub on a free port, stopped at the end."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            parts = urlsplit(self.path)
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = self.rfile.read(int(headers.get("content-length", 0)))
            status, data = hub.answer(Asked(self.command, parts.path, parts.query, headers, body))
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_HEAD = _serve  # noqa: N815 - the names that http.server calls

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub = CannedHub(url=f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
