"""A request that may be forwarded, and the notes of its way through the local model."""

import math
import time
from typing import Final, Generic, TypeVar
from urllib.parse import quote

import msgspec

from edgefleet.base.errors import EdgefleetError
from edgefleet.http1.message import Reply, Request
from edgefleet.protocol.wire import decode
from edgefleet.serving.active_release import Release
from edgefleet.serving.hybrid.policy import HOP
from edgefleet.serving.inference import Answered, Asked, Codec
from edgefleet.serving.schedule import timeout_us
from edgefleet.serving.stats import top_scores
from edgefleet.serving.tensors import Parameters, json_length

F = TypeVar("F")

_FORWARDED: Final = (
    "content-type",
    "content-encoding",
    "inference-header-content-length",
    "traceparent",
)
"""The headers that are forwarded. Credentials of a client are not among them."""
_RESERVED: Final = "%!$&'()*+,;=:@/?"  # of a query, see RFC 3986


class Question(Generic[F]):
    """A ``Codec`` that notes the deadline of its request and the confidence of its answer.

    ``confidence`` is that of the least confident item: not a number if one of its scores is not
    finite, None without an answer or without class scores.
    """

    __slots__ = (
        "_began",
        "_codec",
        "_timeout_us",
        "_wants_confidence",
        "active",
        "confidence",
        "model",
        "request",
    )

    def __init__(
        self,
        codec: Codec[Request, F, Reply],
        request: Request,
        model: str,
        *,
        wants_confidence: bool,
    ) -> None:
        self.request = request
        self.model = model
        self.active: Release | None = None
        self.confidence: float | None = None
        self._codec = codec
        self._wants_confidence = wants_confidence
        self._timeout_us: int | None = None
        self._began = time.monotonic()

    def read(self, request: Request, active: Release) -> Asked[F]:
        """See ``Codec.read``."""
        asked = self._codec.read(request, active)
        self.active, self._timeout_us = active, asked.timeout_us
        return asked

    def reply(self, answered: Answered[F]) -> Reply:
        """See ``Codec.reply``."""
        reply = self._codec.reply(answered)
        if self._wants_confidence:
            self.confidence = _least_confidence(answered)
        return reply

    def left_s(self) -> float | None:
        """The seconds until the answer is of no use. None without a limit."""
        if self._timeout_us is None:  # no release has read it
            self._timeout_us = _timeout_us(self.request)
        if not self._timeout_us:
            return None
        return self._timeout_us / 1e6 - (time.monotonic() - self._began)

    @property
    def target(self) -> str:
        """The path and the query of the request, for another server."""
        request = self.request
        path = quote(request.path, safe="/:")
        return f"{path}?{quote(request.query, safe=_RESERVED)}" if request.query else path

    def headers(self) -> list[tuple[str, bytes]]:
        """The headers for another server."""
        given = self.request.headers
        kept = [(name, given[name.encode()]) for name in _FORWARDED if name.encode() in given]
        return [*kept, (HOP, b"1"), ("accept-encoding", b"identity")]


def may_forward(request: Request) -> bool:
    """Whether the request came from a client and has a plain path.

    A request that another device has forwarded is answered here: else two devices that name each
    other would never stop. Another server might resolve a path with ``..`` to another endpoint.
    """
    if HOP.encode() in request.headers:
        return False
    return not any(part in ("", ".", "..") for part in request.path.split("/")[1:])


def _least_confidence(answered: Answered[F]) -> float | None:
    quality = answered.active.wanted.quality
    scores = None if quality is None else answered.made.get(quality.output)
    if quality is None or scores is None or not scores.size:
        return None
    confidences, _ = top_scores(scores, quality.scores)
    return min(confidences) if all(map(math.isfinite, confidences)) else math.nan


class _Timed(msgspec.Struct):
    parameters: Parameters | None = None


def _timeout_us(request: Request) -> int:
    """The timeout in a request of the Open Inference Protocol. 0 without one that can be read."""
    if not request.path.startswith("/v2/") or b"content-encoding" in request.headers:
        return 0
    body = request.view
    length = json_length(request.headers)
    if length is not None:
        body = body[: max(0, length)]
    try:
        return timeout_us(decode(body, _Timed).parameters or {})
    except EdgefleetError:
        return 0
