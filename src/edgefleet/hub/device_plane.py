"""Check-ins: the hot path. A heartbeat touches memory only; an outcome is answered once durable."""

import asyncio
from collections.abc import Coroutine
from functools import partial
from http import HTTPStatus
from typing import Any, Final

import msgspec

from edgefleet.base.clock import Clock
from edgefleet.base.errors import DeviceError, EdgefleetError, OperatorError
from edgefleet.http1.message import Reply, Request, problem_reply
from edgefleet.hub.devices import Devices
from edgefleet.hub.limits import OUTCOMES_PER_DEVICE_HOUR
from edgefleet.hub.metrics import Metrics
from edgefleet.hub.quota import Quota
from edgefleet.hub.store.sqlite import SqliteStore
from edgefleet.protocol.api import BY_NAME
from edgefleet.protocol.device import CheckIn, CheckInAnswer, Outcome, OutcomeKind
from edgefleet.protocol.version import check_protocol
from edgefleet.protocol.wire import Wire, decode, encode, problem
from edgefleet.rollout.engine import Engine

_ENDPOINT: Final = BY_NAME["checkin"]


class _Version(Wire, frozen=True, kw_only=True):
    """What every version of a check-in says."""

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
        interval_s: float,
    ) -> None:
        self._devices = devices
        self._engine = engine
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._interval_s = interval_s
        self._nothing_new = encode(CheckInAnswer(interval_s=interval_s))
        self._quota = Quota(OUTCOMES_PER_DEVICE_HOUR, clock)

    def __call__(self, request: Request) -> Reply | Coroutine[Any, Any, Reply]:
        """Answer one request of a device."""
        started = self._clock.monotonic()
        try:
            if request.path != _ENDPOINT.path:
                raise OperatorError("not_found", "This listener takes check-ins only.")
            if request.method != _ENDPOINT.method:
                raise OperatorError("method_not_allowed", "A check-in is a POST.")
            authorization = request.headers.get(b"authorization", b"").decode("latin-1")
            row = self._devices.identify(authorization)
            said = self._read(row, request.body)
            if said.outcomes or said.facts:
                self._quota.check(row)
                self._store.writer.check_room()
            if not self._engine.fleet.accept_seq(row, said.seq):
                return self._replayed(row, started)
            now = self._clock.now()
            self._devices.heard(row, said, now)
            if said.outcomes or said.facts:
                return self._durable(row, said, started)
            granted = self._engine.grant(row, now)
            if granted is not None:
                return self._granted(row, said, granted, started)
            return self._answer(row, said, (), started)
        except EdgefleetError as error:
            return self._refusal(error, started)

    async def _durable(self, row: int, said: CheckIn, started: float) -> Reply:
        """Store what the device reported, let it take effect, then acknowledge it."""
        mine = tuple(one for one in said.outcomes if self._engine.concerns(row, one))
        try:
            if said.facts:
                await self._devices.learn(row, said.facts)
                self._quota.count(row, 1)
            taken = await self._take(row, mine) if mine else ()
            now = self._clock.now()
            granted = self._engine.grant(row, now)
            if granted is not None:
                await self._keep(row, (granted,), (granted,), now)
        except EdgefleetError as error:
            return self._refusal(error, started)
        # What does not concern it is acknowledged and forgotten; not a start: nobody admitted it.
        dropped = (one for one in said.outcomes if one not in mine and not _is_start(one))
        return self._answer(row, said, (*taken, *dropped), started)

    async def _granted(self, row: int, said: CheckIn, granted: Outcome, started: float) -> Reply:
        """Store what the offer grants before the offer is made."""
        try:
            await self._keep(row, (granted,), (granted,), granted.at)
        except EdgefleetError as error:
            return self._refusal(error, started)
        return self._answer(row, said, (), started)

    async def _take(self, row: int, said: tuple[Outcome, ...]) -> tuple[Outcome, ...]:
        """Store the outcomes, of starts those that are admitted; returns what is durable then."""
        now = self._clock.now()
        admitted = tuple(
            outcome
            for outcome in said
            if _is_start(outcome) and self._engine.admit(row, outcome, now)
        )
        taken = tuple(outcome for outcome in said if not _is_start(outcome) or outcome in admitted)
        if taken:
            await self._keep(row, taken, admitted, now)
        return taken

    async def _keep(
        self, row: int, taken: tuple[Outcome, ...], admitted: tuple[Outcome, ...], now: float
    ) -> None:
        """Store outcomes and count those that are new.

        The engine keeps the place of what was ``admitted`` until the store has spoken, even if
        nobody waits any more.
        """
        try:
            stored = asyncio.ensure_future(
                self._store.save_outcomes(
                    row, taken, now, partial(self._count, row, len(taken), now)
                )
            )
        except EdgefleetError:
            self._release(row, admitted)
            raise
        stored.add_done_callback(lambda _stored: self._release(row, admitted))
        await asyncio.shield(stored)

    def _release(self, row: int, admitted: tuple[Outcome, ...]) -> None:
        """Give places back that were not taken; one that was recorded keeps its own."""
        for outcome in admitted:
            self._engine.release(row, outcome)

    def _count(self, row: int, sent: int, now: float, fresh: tuple[Outcome, ...]) -> None:
        """These outcomes are durable since ``now``, and were not there before."""
        for outcome in fresh:
            self._engine.record(row, outcome, now)
            self._metrics.outcomes[outcome.kind.value] += 1
        self._metrics.repeated_outcomes += sent - len(fresh)
        self._quota.count(row, len(fresh))

    def _answer(self, row: int, said: CheckIn, taken: tuple[Outcome, ...], started: float) -> Reply:
        now = self._clock.now()
        if said.telemetry is not None:
            self._engine.telemetry(row, said.telemetry, now)
        offer = self._engine.answer(row, now)
        body = self._nothing_new
        if offer is not None or taken:
            body = encode(
                CheckInAnswer(
                    interval_s=self._interval_s,
                    acked=tuple(outcome.id for outcome in taken),
                    offer=offer,
                )
            )
        self._observe("ok", started)
        return Reply(HTTPStatus.OK, body)

    def _read(self, row: int, body: bytes) -> CheckIn:
        """Raises DeviceError ``protocol_unsupported``, which is noted, or ``checkin_malformed``."""
        try:
            said = decode(body, CheckIn, code="checkin_malformed")
        except DeviceError:
            # A newer protocol may have another shape: say that rather than which field is odd.
            self._check(row, decode(body, _Version, code="checkin_malformed").protocol)
            raise
        self._check(row, said.protocol)
        return said

    def _check(self, row: int, protocol: int) -> None:
        try:
            check_protocol(protocol)
        except DeviceError:
            self._engine.fleet.set_protocol(row, protocol)  # it counts as too old for any release
            raise

    def _replayed(self, row: int, started: float) -> Reply:
        last = self._engine.fleet.last_seq(row)
        error = DeviceError("checkin_replayed", f"The last number was {last}.", field="seq")
        self._observe(error.code, started)
        said = problem(error)
        return Reply(error.status, encode(msgspec.structs.replace(said, next_seq=last + 1)))

    def _refusal(self, error: EdgefleetError, started: float) -> Reply:
        self._observe(error.code, started)
        return problem_reply(error)

    def _observe(self, result: str, started: float) -> None:
        self._metrics.checkins[result] += 1
        self._metrics.checkin_seconds.observe(self._clock.monotonic() - started)


def _is_start(outcome: Outcome) -> bool:
    return outcome.kind is OutcomeKind.TRIAL_STARTED
