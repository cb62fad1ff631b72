"""A real hub over HTTP, with a few persistent connections in worker threads.

Each artifact is downloaded once and then shared, as from a cache on the site. Every device still
needs the transfer time of its own virtual link.
"""

from collections.abc import Callable, Mapping
from functools import partial
from threading import local
from typing import Final, TypeVar

import msgspec

from edgefleet.base.errors import EdgefleetError
from edgefleet.base.network import Answer, HttpLink
from edgefleet.protocol.api import BY_NAME, Endpoint
from edgefleet.protocol.device import CheckIn, CheckInAnswer, EnrolAnswer, EnrolRequest
from edgefleet.protocol.release import Envelope
from edgefleet.protocol.wire import Problem, Wire, decode, encode
from edgefleet.sim.limits import ANSWER_TIMEOUT_S, CONNECTIONS
from edgefleet.sim.load.event_loop import Action
from edgefleet.sim.load.hub_api import Done, Failed
from edgefleet.sim.load.worker_threads import Workers

W = TypeVar("W", bound=Wire)
_JSON: Final = {"Content-Type": "application/json"}


class _Links(local):
    """The connections of each thread."""

    def __init__(self) -> None:  # once in each thread
        super().__init__()
        self.by_url: dict[str, HttpLink] = {}


class HttpHub:
    """A ``HubApi`` over HTTP. ``post`` runs the answers in the event loop's thread.

    A device has one request at a time, so the size of the fleet bounds the queued requests.
    """

    def __init__(self, hub_url: str, post: Callable[[Action], None]) -> None:
        self._hub_url = hub_url
        self._checkin_url = hub_url  # until the first enrolment returns another
        self._threads = Workers(CONNECTIONS, "hub", post)
        self._links = _Links()
        self._artifacts: dict[str, bytes] = {}
        self._waiting: dict[str, list[Done[bytes]]] = {}

    def close(self) -> None:
        """Wait until the current requests are answered or have timed out, then stop."""
        self._threads.close()

    def enrol(self, request: EnrolRequest, done: Done[EnrolAnswer]) -> None:
        def enrolled(answer: EnrolAnswer | Failed) -> None:
            if isinstance(answer, EnrolAnswer):
                self._checkin_url = answer.checkin_url
            done(answer)

        call = partial(self._call, self._hub_url, BY_NAME["enrol"], "", {}, encode(request))
        self._threads.submit(self._ask, call, EnrolAnswer, enrolled)

    def check_in(self, token: str, check_in: CheckIn, done: Done[CheckInAnswer]) -> None:
        body = encode(check_in)
        call = partial(self._call, self._checkin_url, BY_NAME["checkin"], token, {}, body)
        self._threads.submit(self._ask, call, CheckInAnswer, done)

    def manifest(self, token: str, sha256: str, done: Done[Envelope]) -> None:
        names = {"sha256": sha256}
        call = partial(self._call, self._hub_url, BY_NAME["device_manifest"], token, names, None)
        self._threads.submit(self._ask, call, Envelope, done)

    def artifact(self, token: str, sha256: str, done: Done[bytes]) -> None:
        if sha256 in self._artifacts:
            done(self._artifacts[sha256])
        elif sha256 in self._waiting:
            self._waiting[sha256].append(done)
        else:
            self._waiting[sha256] = [done]
            self._threads.submit(self._download, token, sha256)

    # These run in the worker threads.

    def _ask(self, call: Callable[[], Answer], kind: type[W], done: Done[W]) -> None:
        result: W | Failed
        try:
            answer = call()
            if answer.status < 300:
                result = decode(answer.body, kind, code="answer_malformed")
            else:
                result = _failed(answer.status, answer.body)
        except EdgefleetError as error:
            result = Failed(error.code, error.message)
        self._threads.post(partial(done, result))

    def _download(self, token: str, sha256: str) -> None:
        endpoint, names = BY_NAME["device_artifact"], {"sha256": sha256}
        result: bytes | Failed
        try:
            path = endpoint.path.format_map(names)
            answer = self._link(self._hub_url).download(
                path, headers=_bearer(token), timeout_s=ANSWER_TIMEOUT_S
            )
            data = b"".join(answer.chunks)
            result = data if answer.status == 200 else _failed(answer.status, data)
        except EdgefleetError as error:
            result = Failed(error.code, error.message)
        self._threads.post(partial(self._downloaded, sha256, result))

    def _call(
        self,
        url: str,
        endpoint: Endpoint,
        token: str,
        names: Mapping[str, str],
        body: bytes | None,
    ) -> Answer:
        headers = _bearer(token) if body is None else _bearer(token) | _JSON
        return self._link(url).request(
            endpoint.method,
            endpoint.path.format_map(dict(names)),
            headers=headers,
            body=body,
            timeout_s=ANSWER_TIMEOUT_S,
        )

    def _link(self, url: str) -> HttpLink:
        """The connection of the current thread."""
        links = self._links.by_url
        if url not in links:
            links[url] = HttpLink(url)
        return links[url]

    # This runs in the event loop's thread.

    def _downloaded(self, sha256: str, result: bytes | Failed) -> None:
        if isinstance(result, bytes):
            self._artifacts[sha256] = result
        for done in self._waiting.pop(sha256):
            done(result)


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


def _failed(status: int, body: bytes) -> Failed:
    try:
        problem = msgspec.json.decode(body, type=Problem)
    except msgspec.MsgspecError:
        return Failed("answer_malformed", f"HTTP status {status} without a Problem in the body.")
    return Failed(problem.code, problem.message, problem.next_seq)
