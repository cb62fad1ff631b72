"""Graceful shutdown: requests in progress may finish; endless streams (live pages) are ended."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgefleet.base.errors import DeviceError
from edgefleet.hub.limits import LAST_REQUESTS_S
from edgefleet.hub.problems import problem_answer


class GracefulShutdown:
    """ASGI middleware. Call ``end`` once, when the hub stops."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._ending = asyncio.Event()

    def end(self) -> None:
        """Start the shutdown: each request in progress has ``LAST_REQUESTS_S`` to finish."""
        self._ending.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = open_ended = False

        async def watched(message: Message) -> None:
            nonlocal started, open_ended
            await send(message)
            started = True
            if message["type"] == "http.response.start":
                # A chunked body can end early. A body with a Content-Length cannot.
                open_ended = all(name != b"content-length" for name, _ in message["headers"])
            elif not message.get("more_body"):
                open_ended = False

        answering = asyncio.ensure_future(self._app(scope, receive, watched))
        ending = asyncio.ensure_future(self._ending.wait())
        try:
            await asyncio.wait({answering, ending}, return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                await asyncio.wait({answering}, timeout=LAST_REQUESTS_S)
            if answering.done():
                answering.result()
                return
        finally:
            ending.cancel()
            answering.cancel()
        await asyncio.wait({answering})
        if not answering.cancelled():
            answering.result()
        elif not started:
            stopping = DeviceError("overloaded", "The hub is shutting down.")
            await problem_answer(stopping)(scope, receive, send)
        elif open_ended:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
