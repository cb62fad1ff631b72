"""Ask an ASGI application in this process, without a socket."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

Message = MutableMapping[str, Any]
App = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
    Awaitable[None],
]


@dataclass(frozen=True)
class Reply:
    """``headers`` by lower-case name. Of a repeated header the last counts."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


async def ask_within(
    app: App,
    method: str,
    target: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    enough: Callable[[bytes], bool] = lambda _body: False,
) -> Reply:
    """Send one request. The client disconnects once the received part is ``enough``."""
    path, _, query = target.partition("?")
    scope: Message = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [
            (name.lower().encode(), value.encode()) for name, value in (headers or {}).items()
        ],
        "client": ("127.0.0.1", 40000),
        "server": ("127.0.0.1", 8400),
    }
    requests: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
    status, head, got = 0, {}, bytearray()
    left = asyncio.Event()

    async def receive() -> Message:
        if requests:
            return requests.pop()
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        nonlocal status, head
        if message["type"] == "http.response.start":
            status = message["status"]
            head = {name.decode().lower(): value.decode() for name, value in message["headers"]}
            return
        got.extend(message.get("body", b""))
        if enough(bytes(got)):
            left.set()
            raise OSError("the client went away")

    try:
        await app(scope, receive, send)
    except OSError:
        if not left.is_set():
            raise
    except Exception as error:  # Starlette raises ClientDisconnect for the OSError above
        if not left.is_set() or type(error).__name__ != "ClientDisconnect":
            raise
    return Reply(status, head, bytes(got))


def ask(app: App, method: str, target: str, **rest: Any) -> Reply:
    """``ask_within`` for tests that have no event loop of their own."""
    return asyncio.run(ask_within(app, method, target, **rest))
