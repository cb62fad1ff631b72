"""Check-ins: the hot path. A heartbeat touches memory only; an outcome is answered once durable.

The order of a check-in is that of ``rollout/checkin.py``. This module reads, stores and replies.
"""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from http import HTTPStatus
from typing import Any, Final

import msgspec

from edgefleet.base.clock import Clock
from edgefleet.base.errors import DeviceError, EdgefleetError, OperatorError, Overloaded
from edgefleet.http1.message import Reply, Request, problem_reply
from edgefleet.hub.devices import Devices
from edgefleet.hub.field_figures import FieldFigures
from edgefleet.hub.heartbeats import Heartbeats
from edgefleet.hub.limits import OUTCOMES_PER_DEVICE_HOUR, OVERLOAD_RETRY_S, WAITED_AT_MOST_S
from edgefleet.hub.metrics import Metrics
from edgefleet.hub.queue_time import QueueTime
from edgefleet.hub.quota import Quota
from edgefleet.hub.store.sqlite import SqliteStore
from edgefleet.hub.truth import WaitingTruth
from edgefleet.hub.watched_devices import WatchedDevices
from edgefleet.protocol.api import BY_NAME
from edgefleet.protocol.device import CheckIn, CheckInAnswer, Outcome
from edgefleet.protocol.version import ONE_MODEL, check_protocol
from edgefleet.protocol.wire import Wire, decode, encode, problem
from edgefleet.rollout import checkin
from edgefleet.rollout.engine import Engine

_ENDPOINT: Final = BY_NAME["checkin"]


class _Version(Wire, frozen=True, kw_only=True):
    """The field that every version of a check-in has."""

    protocol: int


class DevicePlane:
    """The handler of the check-in listener."""

    def __init__(
        self,
        devices: Devices,
        engine: Engine,
        store: SqliteStore,
        metrics: Metrics,
        clock: Clock,
        *,
        truth: WaitingTruth,
        watched: WatchedDevices,
        field: FieldFigures,
        unknown: Callable[[str], None],
        queue_time: QueueTime,
    ) -> None:
        self._devices = devices
        self._engine = engine
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._truth = truth
        self._watched = watched
        self._field = field
        self._unknown = unknown
        self._queue_time = queue_time
        self._replies: dict[float, Reply] = {}  # with nothing new, by interval
        self.quick = Heartbeats(
            devices,
            engine,
            metrics,
            clock,
            truth=truth,
            queue_time=queue_time,
            nothing_new=self._nothing_new,
        )
        self._quota = Quota(OUTCOMES_PER_DEVICE_HOUR, clock)

    def __call__(self, request: Request) -> Reply | Coroutine[Any, Any, Reply]:
        """Answer one request of a device."""
        started = self._clock.monotonic()
        waited_s = self._queue_time.waited_s(started)
        authorization = request.headers.get(b"authorization", b"").decode("latin-1")
        try:
            if request.path != _ENDPOINT.path:
                raise OperatorError("not_found", "This listener takes check-ins only.")
            if request.method != _ENDPOINT.method:
                raise OperatorError("method_not_allowed", "A check-in is a POST.")
            row = self._devices.identify(authorization)
            check_in = self._read(row, request.view)
            if check_in.models or check_in.model is not None or check_in.release is not None:
                check_in = self._devices.known(check_in)
            if check_in.outcomes or check_in.facts:
                self._queue_time.check(waited_s)
                self._quota.check(row)
                self._store.writer.check_room(WAITED_AT_MOST_S)
            step = checkin.begin(self._engine, row, check_in, self._clock.now())
            if isinstance(step, checkin.OutOfSequence):
                return self._late(started) if step.is_late else self._replayed(step, started)
            if check_in.truth_done:
                self._truth.done(row, check_in.truth_done)
            if isinstance(step, checkin.Answered):
                return self._answer(row, step, check_in, started)
            return self._durable(row, step, check_in, started)
        except EdgefleetError as error:
            if error.code == "device_unknown":
                self._unknown(self._devices.identity_of(authorization).name)
            return self._refusal(error, started)

    async def _durable(
        self, row: int, step: checkin.Step, check_in: CheckIn, started: float
    ) -> Reply:
        """Store what the check-in waits for, until it is answered."""
        try:
            while isinstance(step, checkin.Pending):
                step = await self._store_pending(step)
        except EdgefleetError as error:
            return self._refusal(error, started)
        return self._answer(row, step, check_in, started)

    async def _store_pending(self, pending: checkin.Pending) -> checkin.Step:
        """Make it durable, or return its reserved places and raise EdgefleetError.

        The places stay reserved until the store has answered, even if this coroutine is cancelled.
        """
        if pending.facts is not None:
            await self._devices.update_facts(pending.row, pending.facts)
            self._quota.count(pending.row, 1)
            return checkin.finish(self._engine, pending, (), self._clock.now())
        steps: list[checkin.Step] = []
        try:
            stored = asyncio.ensure_future(
                self._store.save_outcomes(
                    pending.row, pending.to_store, pending.at, partial(self._stored, pending, steps)
                )
            )
        except EdgefleetError:
            checkin.abandon(self._engine, pending)
            raise
        stored.add_done_callback(
            lambda _stored: None if steps else checkin.abandon(self._engine, pending)
        )
        await asyncio.shield(stored)
        return steps[0]

    def _stored(
        self, pending: checkin.Pending, steps: list[checkin.Step], fresh: tuple[Outcome, ...]
    ) -> None:
        """Go on in the order of the commits, with the outcomes that were not stored before."""
        steps.append(checkin.finish(self._engine, pending, fresh, self._clock.now()))
        for outcome in fresh:
            self._metrics.outcomes[outcome.kind.value] += 1
        self._metrics.repeated_outcomes += len(pending.to_store) - len(fresh)
        self._quota.count(pending.row, len(fresh))

    def _answer(
        self, row: int, answered: checkin.Answered, check_in: CheckIn, started: float
    ) -> Reply:
        if check_in.telemetry is not None:
            self._watched.add(row, check_in.telemetry, self._clock.now())
            self._field.add(row, check_in)
        reply, truth = self._nothing_new(), self._truth.next_for(row)
        labels = None
        if check_in.facts is not None and check_in.facts.labels is not None:
            labels = dict(self._engine.fleet.labels(row))
        if (
            answered.offers
            or answered.acked
            or answered.wants_models
            or truth
            or labels is not None
        ):
            one_model = check_in.protocol <= ONE_MODEL
            answer = CheckInAnswer(
                interval_s=self._queue_time.interval_s,
                acked=answered.acked,
                offers=() if one_model else answered.offers,
                offer=next(iter(answered.offers), None) if one_model else None,
                want="models" if answered.wants_models else "",
                truth=truth,
                labels=labels,
            )
            reply = Reply(HTTPStatus.OK, encode(answer))
        self._observe("ok", started)
        return reply

    def _nothing_new(self) -> Reply:
        """The reply to a check-in for which there is nothing but the interval."""
        interval_s = self._queue_time.interval_s
        reply = self._replies.get(interval_s)
        if reply is None:
            reply = Reply(HTTPStatus.OK, encode(CheckInAnswer(interval_s=interval_s)))
            self._replies[interval_s] = reply
        return reply

    def _read(self, row: int, body: bytes | bytearray | memoryview) -> CheckIn:
        """Raises DeviceError ``protocol_unsupported``, which is noted, or ``checkin_malformed``."""
        try:
            return decode(body, CheckIn, code="checkin_malformed")
        except DeviceError:
            # A newer protocol may have another shape: say that rather than which field is odd.
            protocol = decode(body, _Version, code="checkin_malformed").protocol
            try:
                check_protocol(protocol)
            except DeviceError:
                self._engine.fleet.set_protocol(row, protocol)  # too old for any release
                raise
            raise

    def _replayed(self, refused: checkin.OutOfSequence, started: float) -> Reply:
        last = refused.next_seq - 1
        error = DeviceError("checkin_replayed", f"The last number was {last}.", field="seq")
        self._observe(error.code, started)
        body = msgspec.structs.replace(problem(error), next_seq=refused.next_seq)
        return Reply(error.status, encode(body))

    def _late(self, started: float) -> Reply:
        """It is no replay: a client that still waits may send it again with a new number."""
        text = "A newer check-in of this device was answered before this one arrived."
        error = Overloaded("deadline", text, retry_after_s=OVERLOAD_RETRY_S)
        self._observe(error.code, started)
        return problem_reply(error)

    def _refusal(self, error: EdgefleetError, started: float) -> Reply:
        if isinstance(error, Overloaded):
            self._queue_time.refused()
        self._observe(error.code, started)
        return problem_reply(error)

    def _observe(self, result: str, started: float) -> None:
        self._metrics.checkins[result] += 1
        self._metrics.checkin_seconds.observe(self._clock.monotonic() - started)
