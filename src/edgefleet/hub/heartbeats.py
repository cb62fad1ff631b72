"""Heartbeats: check-ins without a report, which are answered from their bytes.

A heartbeat whose credential is known and that changes nothing but the time at which the device was
seen gets bytes that were made before. ``DevicePlane`` answers everything else, from the start.
"""

from collections.abc import Callable
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from edgefleet.base.clock import Clock
from edgefleet.http1.credential_heads import CredentialHeads
from edgefleet.http1.message import Reply, reply_bytes
from edgefleet.hub.devices import Devices
from edgefleet.hub.metrics import Metrics
from edgefleet.hub.queue_time import QueueTime
from edgefleet.hub.truth import WaitingTruth
from edgefleet.protocol.api import BY_NAME
from edgefleet.protocol.version import ONE_MODEL, PROTOCOL
from edgefleet.protocol.wire import Wire
from edgefleet.rollout.checkin import heartbeat
from edgefleet.rollout.engine import Engine

_ENDPOINT: Final = BY_NAME["checkin"]
_PATH: Final = _ENDPOINT.path
_METHOD: Final = _ENDPOINT.method


class Heartbeat(Wire, frozen=True, kw_only=True, gc=False):
    """The fields of a check-in without a report. See ``CheckIn``."""

    protocol: Annotated[int, Meta(gt=ONE_MODEL, le=PROTOCOL)]
    seq: Annotated[int, Meta(ge=1, le=1 << 53)]
    digest: Annotated[int, Meta(ge=0, lt=1 << 32)] = 0


_decode: Final = msgspec.json.Decoder(Heartbeat).decode
_MOST_BYTES: Final = len(
    msgspec.json.encode(Heartbeat(protocol=PROTOCOL, seq=1 << 53, digest=(1 << 32) - 1))
)


class Heartbeats:
    """Answers heartbeats. ``nothing_new`` has the reply to them."""

    def __init__(
        self,
        devices: Devices,
        engine: Engine,
        metrics: Metrics,
        clock: Clock,
        *,
        truth: WaitingTruth,
        queue_time: QueueTime,
        nothing_new: Callable[[], Reply],
    ) -> None:
        self.heads = CredentialHeads()
        self._row_of = devices.known_credentials.row
        self._engine = engine
        self._metrics = metrics
        self._monotonic = clock.monotonic
        self._now = clock.now
        self._truth = truth
        self._waited_s = queue_time.waited_s
        self._nothing_new = nothing_new
        self._reply: Reply | None = None  # ``_answer`` has its bytes, with ``_date``
        self._date = b""
        self._answer = b""

    def answer(self, data: bytes, date: bytes, /) -> bytes | None:
        """The answer to a heartbeat. None if ``DevicePlane`` must answer."""
        started = self._monotonic()
        found = self.heads.split(data)
        if found is None:
            return None
        head, credential, body = found
        row = self._row_of(credential)
        if row is None or len(body) > _MOST_BYTES:
            return None
        if head.path != _PATH or head.method != _METHOD or self._truth.waiting(row):
            return None
        try:
            said = _decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        if not heartbeat(
            self._engine,
            row,
            self._now(),
            seq=said.seq,
            digest=said.digest,
            protocol=said.protocol,
        ):
            return None
        self._waited_s(started)
        metrics = self._metrics
        metrics.checkins["ok"] += 1
        metrics.checkin_seconds.observe(self._monotonic() - started)
        reply = self._nothing_new()
        if date is not self._date or reply is not self._reply:
            self._reply, self._date = reply, date
            self._answer = b"".join(reply_bytes(reply, date, to_head=False, closes=False))
        return self._answer
