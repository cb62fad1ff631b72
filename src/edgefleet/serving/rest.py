"""The handler of the inference listener: both REST protocols, health, metrics and the page."""

from collections.abc import Awaitable, Callable, Collection, Iterable
from functools import lru_cache, partial
from typing import Final

import msgspec

from edgefleet.base.errors import EdgefleetError
from edgefleet.base.later import Later
from edgefleet.http1.message import Reply, Request
from edgefleet.serving.bodies import compressed
from edgefleet.serving.client_quota import ClientQuota
from edgefleet.serving.inference import Inferences
from edgefleet.serving.metric_aliases import Sample
from edgefleet.serving.metrics import CONTENT_TYPE, metrics_text
from edgefleet.serving.model_host import ModelHost
from edgefleet.serving.oip import OpenInference
from edgefleet.serving.rest_inferences import RestInferences
from edgefleet.serving.routes import Endpoint, Endpoints, endpoint_of, methods_of, render_error
from edgefleet.serving.tfs import TensorFlowServing

_HEADERS: Final = "content-type, content-encoding, accept-encoding, inference-header-content-length"
_EXPOSED: Final = (
    "inference-header-content-length, edgefleet-generation, edgefleet-answered-by, "
    "edgefleet-fallback, retry-after"
)
_PATHS: Final = 64  # the number of paths with remembered endpoints
_URGENT: Final = frozenset(
    {
        "/health",
        "/health/live",
        "/health/ready",
        "/metrics",
        "/v2/health/live",
        "/v2/health/ready",
    }
)
_PREFLIGHT_S: Final = "600"  # how long a browser remembers the answer


class Rest:
    """Answers every request to the listener.

    ``origins``: pages of these origins may call from a browser (CORS); ``*`` is any. None by
    default. ``samples`` gives more metrics. Each request takes of its client's ``quota``, but for
    those that ``is_urgent``.
    """

    def __init__(
        self,
        host: ModelHost,
        inferences: RestInferences | None = None,
        *,
        origins: Collection[str] = (),
        samples: Callable[[], Iterable[Sample]] = tuple,
        quota: ClientQuota | None = None,
    ) -> None:
        self._host = host
        self._samples = samples
        inferences = inferences or Inferences(host)
        self._oip = OpenInference(host, inferences)
        self._tfs = TensorFlowServing(host, inferences)
        self._origins = frozenset(origins)
        self._quota = quota if quota is not None and quota.rate else None
        self._is_open = self._quota is None and not self._origins
        self._endpoints = lru_cache(maxsize=_PATHS)(self._find_endpoints)
        self._endpoint = lru_cache(maxsize=_PATHS)(self._find_endpoint)

    def __call__(self, request: Request) -> Reply | Awaitable[Reply]:
        headers = request.headers
        if self._is_open and b"accept-encoding" not in headers:
            return self._endpoint(request.method, request.path)(request)
        if b"accept-encoding" in headers or (self._origins and b"origin" in headers):
            return self._adapted(request)
        return self._answer(request)

    def _adapted(self, request: Request) -> Reply | Awaitable[Reply]:
        """The answer as ``_finished`` makes it for this client, also if it is an error."""
        try:
            reply = self._answer(request)
        except EdgefleetError as error:
            reply = render_error(error)
        if isinstance(reply, Reply):
            return self._finished(request, reply)
        if isinstance(reply, Later):
            return reply.mapped(partial(self._finished, request))
        return self._finish(request, reply)

    def _answer(self, request: Request) -> Reply | Awaitable[Reply]:
        if self._quota is not None and not is_urgent(request):
            self._quota.consume(request.peer)
        endpoints = self._endpoints(request.path)
        if request.method == "OPTIONS" and endpoints and self._allows(request):
            return _preflight(endpoints)
        return self._endpoint(request.method, request.path)(request)

    def _find_endpoint(self, method: str, path: str) -> Endpoint:
        return endpoint_of(method, path, self._endpoints(path))

    def _find_endpoints(self, text: str) -> Endpoints:
        match path := text.split("/")[1:]:
            case ["v2", *_]:
                return self._oip.endpoints(path)
            case ["v1", "models", *rest]:
                return self._tfs.endpoints(rest)
            case ["health"]:
                return {"GET": self._oip.ready}
            case ["health", "live" | "ready"]:
                return self._oip.endpoints(["v2", *path])
            case ["metrics"]:
                return {"GET": self._metrics}
            case [""]:
                return {"GET": lambda _: Reply(307, content_type="", headers=(("Location", "ui"),))}
            case ["ui"]:
                return {"GET": _page}
            case ["ui", "figures"]:
                return {"GET": self._figures}
            case _:
                return {}

    def _metrics(self, _: Request) -> Reply:
        return Reply(200, metrics_text(self._host, self._samples()).encode(), CONTENT_TYPE)

    def _figures(self, _: Request) -> Reply:
        from edgefleet.serving.page.replies import figures_reply  # noqa: PLC0415 - for people only

        return figures_reply(self._host)

    async def _finish(self, request: Request, coming: Awaitable[Reply]) -> Reply:
        try:
            return self._finished(request, await coming)
        except EdgefleetError as error:
            return self._finished(request, error)

    def _finished(self, request: Request, answer: Reply | Exception) -> Reply:
        """The answer as this client accepts it, and with the permission for its browser.

        Raises ``answer`` if it is no error of edgefleet.
        """
        if isinstance(answer, EdgefleetError):
            reply = render_error(answer)
        elif isinstance(answer, Exception):
            raise answer
        else:
            reply = answer
        if reply.make is None:
            reply = compressed(reply, request.headers)
        if not self._allows(request):
            return reply
        origin = "*" if "*" in self._origins else _origin(request)
        permission = (
            ("Access-Control-Allow-Origin", origin),
            ("Access-Control-Expose-Headers", _EXPOSED),
            *((("Vary", "Origin"),) if origin != "*" else ()),
        )
        return msgspec.structs.replace(reply, headers=(*reply.headers, *permission))

    def _allows(self, request: Request) -> bool:
        return b"origin" in request.headers and (
            "*" in self._origins or _origin(request) in self._origins
        )


def _page(_: Request) -> Reply:
    from edgefleet.serving.page.replies import page_reply  # noqa: PLC0415 - for people only

    return page_reply()


def is_urgent(request: Request) -> bool:
    """Whether it asks for health or metrics: without a quota, also while the server is full."""
    return request.path in _URGENT and request.method in ("GET", "HEAD")


def _origin(request: Request) -> str:
    return request.headers[b"origin"].decode("latin-1")


def _preflight(endpoints: Endpoints) -> Reply:
    """The answer to a browser that asks before it sends a request of another origin."""
    return Reply(
        204,
        content_type="",
        headers=(
            ("Access-Control-Allow-Methods", ", ".join(methods_of(endpoints))),
            ("Access-Control-Allow-Headers", _HEADERS),
            ("Access-Control-Max-Age", _PREFLIGHT_S),
        ),
    )
