"""A request that may be forwarded, and the notes of its way through the local model."""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Final, Generic, TypeVar

from edgefleet.base.errors import EdgefleetError
from edgefleet.serving.active_release import Release
from edgefleet.serving.hybrid.policy import HOP, Event
from edgefleet.serving.inference import Answered, Asked, Codec
from edgefleet.serving.stats import top_scores

Q = TypeVar("Q")
F = TypeVar("F")
R = TypeVar("R")

Fields = tuple[tuple[str, str], ...]
"""The fields that show who answered: of the head of a REST reply, of the metadata of gRPC."""

FORWARDED: Final = (
    "content-type",
    "content-encoding",
    "inference-header-content-length",
    "traceparent",
)
"""The headers that are forwarded. Credentials of a client are not among them."""


class Question(ABC, Generic[Q, F, R]):
    """A ``Codec`` that notes the deadline of its request and the confidence of its answer.

    ``confidence`` is that of the least confident item: not a number if one of its scores is not
    finite, None without an answer or without class scores. A subclass knows the request and the
    reply of its protocol. The fallback speaks HTTP: it gets ``body`` at ``target``.
    """

    replies: ClassVar[type]  # the class of R

    def __init__(self, codec: Codec[Q, F, R], request: Q, model: str) -> None:
        self.request = request
        self.model = model
        self.active: Release | None = None
        self.confidence: float | None = None
        self.wants_confidence = False
        self._codec = codec
        self._timeout_us: int | None = None
        self._began = time.monotonic()

    def read(self, request: Q, active: Release) -> Asked[F]:
        """See ``Codec.read``."""
        asked = self._codec.read(request, active)
        self.active, self._timeout_us = active, asked.timeout_us
        return asked

    def reply(self, answered: Answered[F]) -> R:
        """See ``Codec.reply``."""
        reply = self._codec.reply(answered)
        if self.wants_confidence:
            self.confidence = _least_confidence(answered)
        return reply

    def left_s(self) -> float | None:
        """The seconds until the answer is of no use. None without a limit."""
        if self._timeout_us is None:  # no release has read it
            self._timeout_us = self.timeout_us()
        if not self._timeout_us:
            return None
        return self._timeout_us / 1e6 - (time.monotonic() - self._began)

    @abstractmethod
    def timeout_us(self) -> int:
        """The timeout of a request that no release has read. 0 without one that can be read."""

    @property
    @abstractmethod
    def size_bytes(self) -> int:
        """The size of the request, about."""

    @property
    @abstractmethod
    def target(self) -> str:
        """The path and the query of the request, for another server."""

    @abstractmethod
    def body(self) -> memoryview:
        """The body for another server. Raises EdgefleetError if the request is invalid."""

    @abstractmethod
    def headers(self) -> list[tuple[str, bytes]]:
        """The headers for another server."""

    @abstractmethod
    def answer(self, headers: Mapping[bytes, bytes], body: bytes, event: Event) -> R:
        """The reply of the fallback, as one to the client.

        Called in a thread if it is large. Raises NetworkError ``answer_malformed``.
        """

    @abstractmethod
    def marked(self, reply: R, fields: Fields) -> R:
        """The reply with these fields."""

    @abstractmethod
    def refused(self, error: EdgefleetError, fields: Fields, note: str) -> R:
        """The reply of an error with these fields, or raises it. ``note`` is a sentence."""


def kept(given: Mapping[bytes, bytes], names: Sequence[str] = FORWARDED) -> list[tuple[str, bytes]]:
    """The headers of a client that are forwarded, and those that each forwarded request has."""
    found = [(name, given[name.encode()]) for name in names if name.encode() in given]
    return [*found, (HOP, b"1"), ("accept-encoding", b"identity")]


def may_forward(headers: Mapping[bytes, bytes], path: Sequence[str]) -> bool:
    """Whether the request came from a client and has a plain path, given by its parts.

    A request that another device has forwarded is answered here: else two devices that name each
    other would never stop. Another server might resolve a path with ``..`` to another endpoint.
    """
    if HOP.encode() in headers:
        return False
    return not any(part in ("", ".", "..") for part in path)


def _least_confidence(answered: Answered[F]) -> float | None:
    quality = answered.active.wanted.quality
    scores = None if quality is None else answered.made.get(quality.output)
    if quality is None or scores is None or not scores.size:
        return None
    confidences, _ = top_scores(scores, quality.scores)
    return min(confidences) if all(map(math.isfinite, confidences)) else math.nan
