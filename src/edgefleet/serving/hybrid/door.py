"""Inferences with a fallback, at the door of the protocols.

Every request is asked of the local release first, and counted by it as without a fallback: an
error, a refusal, a latency or a confidence is evidence about the release, whichever server answers
the client in the end. For the same reason a local run goes on when the fallback was faster.
"""

import asyncio
from collections.abc import Awaitable, Iterator
from typing import Any, Final, TypeVar, cast

from edgefleet.base.errors import EdgefleetError
from edgefleet.http1.message import Reply, Request
from edgefleet.protocol.fallback import FallbackSettings
from edgefleet.serving.active_release import Release
from edgefleet.serving.hybrid.forward import Forwarder
from edgefleet.serving.hybrid.policy import (
    ANSWERED_BY,
    NOTE,
    SENTENCES,
    Event,
    Outcome,
    event_of_error,
    hedge_delay_s,
    is_unsure,
)
from edgefleet.serving.hybrid.question import Fields, Question, may_forward
from edgefleet.serving.hybrid.rest_question import RestQuestion
from edgefleet.serving.inference import Codec, Inferences
from edgefleet.serving.limits import FALLBACK_RACING, FALLBACK_RACING_BYTES
from edgefleet.serving.metric_aliases import Sample

F = TypeVar("F")
Q = TypeVar("Q")
R = TypeVar("R")

_LOCAL: Final[Fields] = ((ANSWERED_BY, "local"),)


class Hybrid:
    """See ``inference.Inferences``. Requests are forwarded after the events of the settings.

    ``answer`` is for every protocol: they share the budget, the circuit breaker and the counts.
    """

    def __init__(self, inferences: Inferences, settings: FallbackSettings) -> None:
        self.inferences = inferences
        self._when = settings.when
        self._fallback = Forwarder(settings)
        self._racing: dict[asyncio.Future[Any], int] = {}  # with the bytes of the request

    def find(self, model: str, version: str | None = None) -> Release:
        """See ``Inferences.find``."""
        return self.inferences.find(model, version)

    def infer(
        self,
        codec: Codec[Request, F, Reply],
        request: Request,
        model: str,
        version: str | None = None,
    ) -> Reply | Awaitable[Reply]:
        """See ``Inferences.infer``. An error after an event of the policy becomes a reply."""
        if not may_forward(request.headers, request.path.split("/")[1:]):
            return self.inferences.infer(codec, request, model, version)
        return self.answer(RestQuestion(codec, request, model), version)

    def answer(self, question: Question[Q, F, R], version: str | None) -> R | Awaitable[R]:
        """The local answer, or that of the fallback. Raises EdgefleetError without an event."""
        self._fallback.came()
        question.wants_confidence = self._when.confidence is not None
        try:
            reply = self.inferences.infer(question, question.request, question.model, version)
        except EdgefleetError as error:
            return self._after_error(question, error)
        if isinstance(reply, question.replies):
            return self._after_reply(question, cast("R", reply))
        return self._in_turn(question, cast("Awaitable[R]", reply))

    def samples(self) -> Iterator[Sample]:
        """The metrics."""
        return self._fallback.samples()

    def close(self) -> None:
        """Close the connections to the fallback."""
        self._fallback.close()

    def _after_error(self, question: Question[Q, F, R], error: EdgefleetError) -> Awaitable[R]:
        """Raises the error again if it is no event of the policy."""
        is_served = question.model in self.inferences.host.routes
        event = event_of_error(self._when, error.code, is_served=is_served)
        if event is None:
            raise error
        return self._instead(question, event, error)

    def _after_reply(self, question: Question[Q, F, R], reply: R) -> R | Awaitable[R]:
        if is_unsure(self._when, question.confidence):
            return self._instead(question, Event.CONFIDENCE, reply)
        self._fallback.counts.answers["local"] += 1
        return question.marked(reply, _LOCAL)

    async def _instead(
        self, question: Question[Q, F, R], event: Event, local: R | EdgefleetError
    ) -> R:
        """The answer of the fallback, else the local answer or error."""
        got = await self._fallback.ask(question, event)
        answer = local if got.reply is None else got.reply
        return self._reply(question, event, got.outcome, answer)

    async def _in_turn(self, question: Question[Q, F, R], coming: Awaitable[R]) -> R:
        """Wait for the local answer. If it is late, ask the fallback, too."""
        delay_s = self._delay_s(question)
        if delay_s is not None:
            local = asyncio.ensure_future(coming)
            try:
                await asyncio.wait((local,), timeout=delay_s)
            except asyncio.CancelledError:
                local.cancel()  # the client has gone: the run is dropped from its queue
                raise
            if not local.done() and self._may_race(question):
                return await self._race(question, local)
            coming = local
        try:
            answer = self._after_reply(question, await coming)
        except EdgefleetError as error:
            answer = self._after_error(question, error)
        if isinstance(answer, question.replies):
            return cast("R", answer)
        return await cast("Awaitable[R]", answer)

    def _delay_s(self, question: Question[Q, F, R]) -> float | None:
        if self._when.hedge is None or question.active is None:
            return None
        latency = question.active.stats.latency
        return hedge_delay_s(self._when, sum(latency.counts), latency.quantile_us)

    def _may_race(self, question: Question[Q, F, R]) -> bool:
        """Bounds the bodies of local runs that go on after their clients have an answer."""
        racing_bytes = sum(self._racing.values()) + question.size_bytes
        return len(self._racing) < FALLBACK_RACING and racing_bytes <= FALLBACK_RACING_BYTES

    async def _race(self, question: Question[Q, F, R], local: "asyncio.Future[R]") -> R:
        """The first answer. The request to the fallback is ended if the local answer is first."""
        self._racing[local] = question.size_bytes
        local.add_done_callback(self._raced)
        remote = asyncio.ensure_future(self._fallback.ask(question, Event.HEDGE))
        try:
            await asyncio.wait((local, remote), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            remote.cancel()
            raise
        if local.done() and local.exception() is None:
            reply = local.result()
            if not is_unsure(self._when, question.confidence):
                remote.cancel()
                return self._reply(question, Event.HEDGE, Outcome.LOCAL_FIRST, reply)
        got = await remote
        if got.reply is not None:
            return self._reply(question, Event.HEDGE, got.outcome, got.reply)
        try:
            answer: R | EdgefleetError = await local
        except EdgefleetError as error:
            answer = error
        return self._reply(question, Event.HEDGE, got.outcome, answer)

    def _raced(self, local: "asyncio.Future[Any]") -> None:
        del self._racing[local]
        if not local.cancelled():
            local.exception()  # asyncio logs an exception that nothing reads

    def _reply(
        self,
        question: Question[Q, F, R],
        event: Event,
        outcome: Outcome,
        answer: R | EdgefleetError,
    ) -> R:
        """The reply after an event, with its fields. Counts both."""
        counts = self._fallback.counts
        counts.outcomes[event, outcome] += 1
        by_fallback = outcome is Outcome.ANSWERED
        by = "fallback" if by_fallback else "local"
        fields: Fields = ((ANSWERED_BY, by), (NOTE, f"{event}; {outcome}"))
        if isinstance(answer, EdgefleetError):
            note = f"The fallback did not answer: {SENTENCES[outcome]}."
            return question.refused(answer, fields, note)
        counts.answers["fallback" if by_fallback else "local"] += 1
        return question.marked(answer, fields)
