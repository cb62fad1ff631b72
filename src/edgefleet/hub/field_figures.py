"""Latency and memory of each release in each hardware class, as its devices report them.

One record for each model, release and profile, of constant size: a histogram of latency, sums, and
one bit for each of ``FIELD_DEVICE_BITS`` devices. A report counts as at most ``REPORT_WEIGHT``
requests of the histogram, as in ``rollout.evidence.sketch``, so a busy device does not decide
alone. The records that were reported longest ago are dropped beyond ``FIELD_RECORDS``.

Soft: a file keeps them, written at most once in ``FIELD_KEEP_S``. A kill loses what came since.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final

import msgspec

from edgefleet.hub.limits import FIELD_DEVICE_BITS, FIELD_KEEP_S, FIELD_RECORDS
from edgefleet.protocol.bins import upper_edge_us
from edgefleet.protocol.device import CheckIn, Telemetry
from edgefleet.protocol.field_figures import BenchFigures, FieldVariant
from edgefleet.protocol.wire import Wire, encode
from edgefleet.rollout.evidence.sketch import weighed
from edgefleet.rollout.fleet.fleet import Fleet

Key = tuple[str, str, str]
"""Model, release, profile."""

Knows = Callable[[str | None, str | None], bool]
"""Whether the hub has published a model's release: a device cannot invent names."""

_ALL_BITS: Final = (1 << FIELD_DEVICE_BITS) - 1


class FieldRecord(msgspec.Struct):
    """The sums of one key. ``latency`` has weights by bucket, ``devices`` a bit for each device."""

    requests: int = 0
    cpu_s: float = 0.0
    memory_mib: int = 0
    devices: str = "0"  # hexadecimal
    latency: dict[int, int] = msgspec.field(default_factory=dict)

    def add(self, row: int, telemetry: Telemetry) -> None:
        """Add one report."""
        self.requests += telemetry.requests
        self.cpu_s += telemetry.cpu_s
        self.memory_mib = max(self.memory_mib, telemetry.memory_mib)
        self.devices = f"{int(self.devices, 16) | 1 << row % FIELD_DEVICE_BITS:x}"
        counts = telemetry.sketches.latency if telemetry.sketches else {}
        total = sum(counts.values())
        for bucket, count in counts.items():
            self.latency[bucket] = self.latency.get(bucket, 0) + weighed(count, total)

    def latency_us(self, share: float) -> int | None:
        """The quantile ``share`` in microseconds, as ``Sketch.latency_us``."""
        wanted, below = share * sum(self.latency.values()), 0
        for bucket in sorted(self.latency):
            below += self.latency[bucket]
            if below and below >= wanted:
                return upper_edge_us(bucket)
        return None

    def variant(self, release: str, name: str, bench: BenchFigures | None) -> FieldVariant:
        """The record as operators see it."""
        return FieldVariant(
            release=release,
            name=name,
            requests=self.requests,
            devices=(int(self.devices, 16) & _ALL_BITS).bit_count(),
            latency_us_p50=self.latency_us(0.5),
            latency_us_p10=self.latency_us(0.1),
            cpu_us=round(self.cpu_s * 1e6 / self.requests, 1) if self.cpu_s else None,
            memory_mib=self.memory_mib,
            bench=bench,
        )


class _Stored(Wire, frozen=True):
    since: float
    records: list[tuple[str, str, str, FieldRecord]]


class FieldFigures:
    """The records, the one that was reported last at the end."""

    def __init__(
        self, fleet: Fleet, knows: Knows, keep: Callable[[bytes], None], *, now: float
    ) -> None:
        self._fleet = fleet
        self._knows = knows
        self._keep = keep
        self._records: OrderedDict[Key, FieldRecord] = OrderedDict()
        self._kept_at = now
        self._changed = False
        self.since = now

    def add(self, row: int, check_in: CheckIn) -> None:
        """Add the figures of a check-in. Those of a copied device would be of several."""
        telemetry = check_in.telemetry
        if telemetry is None or not telemetry.requests or self._fleet.copies.is_copied(row):
            return
        model = telemetry.model or check_in.model
        if model is None or not self._knows(model, telemetry.release):
            return
        key = (model, telemetry.release, self._fleet.profile(row))
        record = self._records.get(key)
        if record is None:
            record = self._records[key] = FieldRecord()
            if len(self._records) > FIELD_RECORDS:
                self._records.popitem(last=False)
        else:
            self._records.move_to_end(key)
        record.add(row, telemetry)
        self._changed = True

    def of(self, model: str) -> Iterator[tuple[str, str, FieldRecord]]:
        """Release, profile and record of each of a model's."""
        for (name, release, profile), record in self._records.items():
            if name == model:
                yield release, profile, record

    def keep(self, now: float, *, at_once: bool = False) -> None:
        """Keep the records for the next hub, if it is time."""
        if not self._changed or not (at_once or abs(now - self._kept_at) >= FIELD_KEEP_S):
            return
        self._kept_at, self._changed = now, False
        records = [(*key, record) for key, record in self._records.items()]
        self._keep(encode(_Stored(self.since, records)))

    def load(self, data: bytes) -> None:
        """Load what the hub before kept. Damaged data are ignored."""
        with suppress(msgspec.MsgspecError, ValueError):
            stored = msgspec.json.decode(data, type=_Stored)
            self.since = stored.since
            for model, release, profile, record in stored.records[-FIELD_RECORDS:]:
                int(record.devices, 16)
                self._records[model, release, profile] = record
