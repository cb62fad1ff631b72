"""Forwards requests to the fallback, within its budget, its circuit breaker and the memory."""

import asyncio
import math
import sys
from collections.abc import Iterator
from typing import Any, Final, Generic, NamedTuple, TypeVar

from edgefleet.base.errors import EdgefleetError, NetworkError, OperatorError
from edgefleet.protocol.fallback import FallbackSettings
from edgefleet.serving.hybrid.breaker import Breaker
from edgefleet.serving.hybrid.budget import Budget
from edgefleet.serving.hybrid.counts import Counts
from edgefleet.serving.hybrid.policy import Event, Outcome
from edgefleet.serving.hybrid.question import Question
from edgefleet.serving.hybrid.upstream import Upstream, UpstreamAnswer
from edgefleet.serving.limits import FALLBACK_ANSWER_BYTES, FALLBACK_FORWARDS
from edgefleet.serving.metric_aliases import Sample

R = TypeVar("R")

_LOG_S: Final = 60.0
_LARGE_BYTES: Final = 1 << 20  # a larger answer is read outside the event loop
_FAULTS: Final = frozenset({401, 403, 408, 429})  # the endpoint does not work, or not for us
_OUTCOMES: Final = {"unreachable": Outcome.UNREACHABLE, "answer_malformed": Outcome.MALFORMED}


class Got(NamedTuple, Generic[R]):
    """The outcome of a forwarded request. The reply is None but for ``Outcome.ANSWERED``."""

    outcome: Outcome
    reply: R | None = None


class _ReadNoFurther(Exception):  # noqa: N818 - a limit, not a fault
    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome)
        self.outcome = outcome


class Forwarder:
    """The fallback as ``Hybrid`` asks it."""

    def __init__(self, settings: FallbackSettings) -> None:
        self.counts = Counts()
        self._timeout_s = settings.timeout_s
        self._url = settings.address.url
        self._upstream = Upstream(settings.address, settings.ca_file, settings.token_file)
        self._budget = Budget(settings.budget)
        self._breaker = Breaker()
        self._loop = asyncio.get_running_loop()
        self._in_flight = 0
        self._receiving_bytes = 0
        self._logged_at = -math.inf  # of the last fault
        self._is_logged = False  # the fallback has not answered since

    def came(self) -> None:
        """Count a request of a client: the budget is a share of them."""
        self._budget.came()

    def samples(self) -> Iterator[Sample]:
        """The metrics."""
        is_closed = self._breaker.state(self._loop.time()) == "closed"
        return self.counts.samples(in_flight=self._in_flight, breaker_closed=is_closed)

    def close(self) -> None:
        """Close the connections."""
        self._upstream.close()

    async def ask(self, question: Question[Any, Any, R], event: Event) -> Got[R]:
        """Ask the fallback once. An error is an outcome. A cancellation ends the request.

        Raises EdgefleetError if the request is invalid: no release has read it.
        """
        left_s = question.left_s()
        refusal = self._refusal(left_s, question.size_bytes)
        if refusal is not None:
            return Got(refusal)
        try:
            body = question.body()
        except EdgefleetError:
            self._breaker.dropped()
            raise
        self._budget.use(self._loop.time(), len(body))
        self.counts.sent_bytes += len(body)
        limit_s = self._timeout_s if left_s is None else min(left_s, self._timeout_s)
        self._in_flight += 1
        try:
            got = await self._exchange(question, body, event, limit_s)
        except asyncio.CancelledError:
            self._breaker.dropped()
            raise
        finally:
            self._in_flight -= 1
        return got

    def _refusal(self, left_s: float | None, size_bytes: int) -> Outcome | None:
        """The reason not to ask. None: the breaker has allowed it, and waits for its end."""
        now = self._loop.time()
        if left_s is not None and left_s <= 0:
            return Outcome.DEADLINE
        if self._in_flight >= FALLBACK_FORWARDS:
            return Outcome.BUSY
        if (spent := self._budget.spent(now, size_bytes)) is not None:
            return Outcome(spent)
        if not self._breaker.allows(now):
            return Outcome.BREAKER_OPEN
        return None

    async def _exchange(
        self, question: Question[Any, Any, R], body: memoryview, event: Event, limit_s: float
    ) -> Got[R]:
        received_bytes = 0

        def count(size_bytes: int) -> None:
            nonlocal received_bytes
            received_bytes += size_bytes
            self._receiving_bytes += size_bytes
            self.counts.received_bytes += size_bytes
            if not self._budget.receive(self._loop.time(), size_bytes):
                raise _ReadNoFurther(Outcome.BUDGET_BYTES)
            if self._receiving_bytes > FALLBACK_ANSWER_BYTES:
                raise _ReadNoFurther(Outcome.BUSY)

        try:
            async with asyncio.timeout(limit_s):
                answer = await self._upstream.ask(question.target, question.headers(), body, count)
            return await self._read(question, event, answer)
        except TimeoutError:
            if limit_s < self._timeout_s:  # the limit of the client: no fault of the fallback
                self._breaker.dropped()
                return Got(Outcome.DEADLINE)
            return self._failed(Outcome.TIMEOUT, f"There was no answer within {limit_s:g} s.")
        except NetworkError as error:
            return self._failed(_OUTCOMES.get(error.code, Outcome.UNREACHABLE), error.message)
        except _ReadNoFurther as end:
            self._breaker.dropped()
            return Got(end.outcome)
        except OperatorError as error:
            self._breaker.dropped()
            self._report(Outcome.SETTING, error.message)
            return Got(Outcome.SETTING)
        finally:
            self._receiving_bytes -= received_bytes

    async def _read(
        self, question: Question[Any, Any, R], event: Event, answer: UpstreamAnswer
    ) -> Got[R]:
        """Raises NetworkError ``answer_malformed``."""
        if answer.status != 200:
            if answer.status in _FAULTS or not 400 <= answer.status < 500:
                return self._failed(Outcome.REFUSED, f"The answer has status {answer.status}.")
            self._breaker.succeeded()
            return Got(Outcome.REFUSED)
        if len(answer.body) > _LARGE_BYTES:
            reply = await asyncio.to_thread(question.answer, answer.headers, answer.body, event)
        else:
            reply = question.answer(answer.headers, answer.body, event)
        self._breaker.succeeded()
        if self._is_logged:
            self._is_logged = False
            sys.stderr.write(f"The fallback {self._url} answers again.\n")
            sys.stderr.flush()
        return Got(Outcome.ANSWERED, reply)

    def _failed(self, outcome: Outcome, fault: str) -> Got[Any]:
        self._breaker.failed(self._loop.time())
        self._report(outcome, fault)
        return Got(outcome)

    def _report(self, outcome: Outcome, fault: str) -> None:
        """Log a fault, at most one a minute."""
        now = self._loop.time()
        if now - self._logged_at >= _LOG_S:
            self._logged_at, self._is_logged = now, True
            sys.stderr.write(f"The fallback {self._url} does not answer ({outcome}): {fault}\n")
            sys.stderr.flush()
