"""Requests to the provider, each with limits on size and time. They run in threads."""

import asyncio
import threading
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import urlencode, urlsplit

from edgefleet.base.errors import EdgefleetError, NetworkError
from edgefleet.base.network import Answer, HttpLink
from edgefleet.hub.oidc.limits import FETCH_BYTES, FETCH_PAUSE_S, FETCH_S, FETCHES_AT_ONCE


class Fetching:
    """A request that is given up on ends by itself; until then it counts as in progress."""

    def __init__(self) -> None:
        self._threads = threading.BoundedSemaphore(FETCHES_AT_ONCE)

    async def get(self, url: str) -> bytes:
        """The body of a document. Raises NetworkError ``oidc_unavailable``."""
        answer = await self._ask("GET", url, {"accept": "application/json"}, None)
        if answer.status != 200:
            raise unavailable(f"{url} answers with HTTP {answer.status}.")
        return answer.body

    async def post(self, url: str, fields: Mapping[str, str], headers: Mapping[str, str]) -> Answer:
        """The answer to a form. Raises NetworkError ``oidc_unavailable``."""
        kind = {
            "content-type": "application/x-www-form-urlencoded",
            "accept": "application/json",
        }
        return await self._ask("POST", url, kind | dict(headers), urlencode(fields).encode())

    async def _ask(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> Answer:
        if not self._threads.acquire(blocking=False):
            raise unavailable("Too many requests to the provider are in progress.")
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Answer] = loop.create_future()

        def deliver(answer: Answer | EdgefleetError) -> None:
            if answered.done():  # given up on
                return
            if isinstance(answer, Answer):
                answered.set_result(answer)
            else:
                answered.set_exception(unavailable(answer.message))

        def ask() -> None:
            try:
                answer: Answer | EdgefleetError = _request(method, url, headers, body)
            except EdgefleetError as error:
                answer = error
            finally:
                self._threads.release()
            with suppress(RuntimeError):  # the hub has stopped
                loop.call_soon_threadsafe(deliver, answer)

        # A daemon: the hub stops without waiting for a provider that hangs.
        threading.Thread(target=ask, name="oidc", daemon=True).start()
        try:
            return await asyncio.wait_for(answered, FETCH_S)
        except TimeoutError:
            raise unavailable(f"{url} did not answer within {FETCH_S:g} s.") from None


def unavailable(message: str) -> NetworkError:
    return NetworkError("oidc_unavailable", message)


def _request(method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
    """Raises an EdgefleetError for a request that fails."""
    parts = urlsplit(url)
    link = HttpLink(f"{parts.scheme}://{parts.netloc}", answer_bytes=FETCH_BYTES)
    path = parts.path or "/"
    try:
        return link.request(
            method,
            f"{path}?{parts.query}" if parts.query else path,
            headers=headers,
            body=body,
            timeout_s=FETCH_PAUSE_S,
        )
    finally:
        link.close()
