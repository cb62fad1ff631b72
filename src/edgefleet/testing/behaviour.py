"""The behaviour of devices with a release: the share that fails, and the reported figures."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from edgefleet.base.ids import device_hash, mix64

_WHOLE: Final = float(1 << 64)


class Fate(StrEnum):
    """The result of one release on one device."""

    HEALTHY = "healthy"
    FAILS = "fails"  # the trial fails, and the device rolls back by itself
    CRASHES = "crashes"  # the trial fails because the serving process ends
    REFUSES = "refuses"  # the device does not activate the release
    DIFFERS = "differs"  # its answers differ: the device refuses it, if it has a shadow phase
    SILENT = "silent"  # the device never checks in after activating
    DEFERS = "defers"  # the device defers the release for ever
    DAMAGED = "damaged"  # it defers the release: its downloads have the same wrong bytes


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Shares of the devices, 0 to 1 and together at most 1. The other devices are healthy.

    The fate of a device is a function of its name, so a fleet has the same fates in each run. The
    figures are the report of a healthy device about the release.
    """

    fails: float = 0.0
    crashes: float = 0.0
    refuses: float = 0.0
    differs: float = 0.0
    silent: float = 0.0
    defers: float = 0.0
    damaged: float = 0.0
    error_rate: float = 0.0  # of inference requests
    refusal_rate: float = 0.0  # of requests, before the release runs
    traffic: float = 1.0  # share of the usual requests that arrive
    confidence: float = 0.94  # mean top score
    latency_us: int = 600  # p95
    memory_mib: int = 40  # of the 64 that a fake variant may take
    cpu_us: int = 300  # CPU time of a request
    memory_growth_mib_h: float = 0.0
    serving_ends: int = 0  # of the serving process in an hour, once the release is confirmed
    accuracy: float | None = 0.95  # on the golden set; None: not reported
    labelled: float = 0.0  # share of answers that get a label
    labels_late_s: float = 0.0  # from the answer to its label
    labelled_accuracy: float = 0.95  # share of the labelled answers that are correct
    drift: float = 0.0  # share of answers in a class without answers before

    def fate(self, device: str, release: str) -> Fate:
        """The fate of ``device`` with ``release``."""
        place = mix64(device_hash(device) ^ device_hash(f"release {release}")) / _WHOLE
        for share, fate in (
            (self.fails, Fate.FAILS),
            (self.crashes, Fate.CRASHES),
            (self.refuses, Fate.REFUSES),
            (self.differs, Fate.DIFFERS),
            (self.silent, Fate.SILENT),
            (self.defers, Fate.DEFERS),
            (self.damaged, Fate.DAMAGED),
        ):
            if place < share:
                return fate
            place -= share
        return Fate.HEALTHY
