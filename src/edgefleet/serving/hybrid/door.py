"""Inferences with a fallback, at the door of the REST protocols.

Every request is asked of the local release first, and counted by it as without a fallback: an
error, a refusal, a latency or a confidence is evidence about the release, whichever server answers
the client in the end. For the same reason a local run goes on when the fallback was faster.
"""

import asyncio
from collections.abc import Awaitable, Iterator
from typing import Any, Final, TypeVar

from msgspec import structs

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
from edgefleet.serving.hybrid.question import Question, may_forward
from edgefleet.serving.inference import Codec, Inferences
from edgefleet.serving.limits import FALLBACK_RACING, FALLBACK_RACING_BYTES
from edgefleet.serving.metric_aliases import Sample
from edgefleet.serving.routes import render_error

F = TypeVar("F")

_LOCAL: Final = f"{ANSWERED_BY}: local\r\n".encode()
_FALLBACK: Final = f"{ANSWERED_BY}: fallback\r\n".encode()


class Hybrid:
    """See ``inference.Inferences``. Requests are forwarded after the events of the settings."""

    def __init__(self, inferences: Inferences, settings: FallbackSettings) -> None:
        self._inferences = inferences
        self._when = settings.when
        self._fallback = Forwarder(settings)
        self._racing: dict[asyncio.Future[Reply], int] = {}  # with the bytes of the body

    def find(self, model: str, version: str | None = None) -> Release:
        """See ``Inferences.find``."""
        return self._inferences.find(model, version)

    def infer(
        self,
        codec: Codec[Request, F, Reply],
        request: Request,
        model: str,
        version: str | None = None,
    ) -> Reply | Awaitable[Reply]:
        """See ``Inferences.infer``. An error after an event of the policy becomes a reply."""
        if not may_forward(request):
            return self._inferences.infer(codec, request, model, version)
        self._fallback.came()
        wants_confidence = self._when.confidence is not None
        question = Question(codec, request, model, wants_confidence=wants_confidence)
        try:
            reply = self._inferences.infer(question, request, model, version)
        except EdgefleetError as error:
            return self._after_error(question, error)
        if isinstance(reply, Reply):
            return self._after_reply(question, reply)
        return self._in_turn(question, reply)

    def samples(self) -> Iterator[Sample]:
        """The metrics."""
        return self._fallback.samples()

    def close(self) -> None:
        """Close the connections to the fallback."""
        self._fallback.close()

    def _after_error(self, question: Question[Any], error: EdgefleetError) -> Awaitable[Reply]:
        """Raises the error again if it is no event of the policy."""
        is_served = question.model in self._inferences.host.routes
        event = event_of_error(self._when, error.code, is_served=is_served)
        if event is None:
            raise error
        return self._instead(question, event, error)

    def _after_reply(self, question: Question[Any], reply: Reply) -> Reply | Awaitable[Reply]:
        if is_unsure(self._when, question.confidence):
            return self._instead(question, Event.CONFIDENCE, reply)
        self._fallback.counts.answers["local"] += 1
        return structs.replace(reply, lines=reply.lines + _LOCAL)

    async def _instead(
        self, question: Question[Any], event: Event, local: Reply | EdgefleetError
    ) -> Reply:
        """The answer of the fallback, else the local answer or error."""
        got = await self._fallback.ask(question, event)
        return self._reply(event, got.outcome, got.reply or local)

    async def _in_turn(self, question: Question[Any], coming: Awaitable[Reply]) -> Reply:
        """Wait for the local answer. If it is late, ask the fallback, too."""
        delay_s = self._delay_s(question)
        if delay_s is not None:
            local = asyncio.ensure_future(coming)
            await asyncio.wait((local,), timeout=delay_s)
            if not local.done() and self._may_race(question):
                return await self._race(question, local)
            coming = local
        try:
            answer = self._after_reply(question, await coming)
        except EdgefleetError as error:
            answer = self._after_error(question, error)
        return answer if isinstance(answer, Reply) else await answer

    def _delay_s(self, question: Question[Any]) -> float | None:
        if self._when.hedge is None or question.active is None:
            return None
        latency = question.active.stats.latency
        return hedge_delay_s(self._when, sum(latency.counts), latency.quantile_us)

    def _may_race(self, question: Question[Any]) -> bool:
        """Bounds the bodies of local runs that go on after their clients have an answer."""
        racing_bytes = sum(self._racing.values()) + len(question.request.view)
        return len(self._racing) < FALLBACK_RACING and racing_bytes <= FALLBACK_RACING_BYTES

    async def _race(self, question: Question[Any], local: "asyncio.Future[Reply]") -> Reply:
        """The first answer. The request to the fallback is ended if the local answer is first."""
        self._racing[local] = len(question.request.view)
        local.add_done_callback(self._raced)
        remote = asyncio.ensure_future(self._fallback.ask(question, Event.HEDGE))
        await asyncio.wait((local, remote), return_when=asyncio.FIRST_COMPLETED)
        if local.done() and local.exception() is None:
            reply = local.result()
            if not is_unsure(self._when, question.confidence):
                remote.cancel()
                return self._reply(Event.HEDGE, Outcome.LOCAL_FIRST, reply)
        got = await remote
        if got.reply is not None:
            return self._reply(Event.HEDGE, got.outcome, got.reply)
        try:
            return self._reply(Event.HEDGE, got.outcome, await local)
        except EdgefleetError as error:
            return self._reply(Event.HEDGE, got.outcome, error)

    def _raced(self, local: "asyncio.Future[Reply]") -> None:
        del self._racing[local]
        if not local.cancelled():
            local.exception()  # asyncio logs an exception that nothing reads

    def _reply(self, event: Event, outcome: Outcome, answer: Reply | EdgefleetError) -> Reply:
        """The reply after an event, with its headers. Counts both."""
        counts = self._fallback.counts
        counts.outcomes[event, outcome] += 1
        by_fallback = outcome is Outcome.ANSWERED
        if isinstance(answer, EdgefleetError):
            answer = render_error(
                answer, note=f"The fallback did not answer: {SENTENCES[outcome]}."
            )
        else:
            counts.answers["fallback" if by_fallback else "local"] += 1
        line = f"{NOTE}: {event}; {outcome}\r\n".encode()
        who = _FALLBACK if by_fallback else _LOCAL
        return structs.replace(answer, lines=answer.lines + who + line)
