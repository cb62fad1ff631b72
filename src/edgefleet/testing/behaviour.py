"""How devices fare with a release: which share of them fails, and what those that serve report."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from edgefleet.base.ids import device_hash, mix64

_WHOLE: Final = float(1 << 64)


class Fate(StrEnum):
    """What becomes of one device with one release."""

    HEALTHY = "healthy"
    FAILS = "fails"  # its trial fails, and it goes back by itself
    CRASHES = "crashes"  # the same, as its serving process ends
    REFUSES = "refuses"  # it does not activate it
    SILENT = "silent"  # it is never heard again after activating
    DEFERS = "defers"  # it puts it off for ever


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Shares are of the devices, 0 to 1, and together at most 1; the rest is healthy.

    Which devices they are follows from their names, so the same fleet meets the same fate in each
    run. The figures are those that a healthy device reports about the release.
    """

    fails: float = 0.0
    crashes: float = 0.0
    refuses: float = 0.0
    silent: float = 0.0
    defers: float = 0.0
    error_rate: float = 0.0  # of inference requests
    confidence: float = 0.94  # mean top score
    latency_us: int = 600  # p95
    memory_mib: int = 40  # of the 64 that a fake variant may take
    accuracy: float = 0.95  # on the golden set
    drift: float = 0.0  # share of answers in a class of which there was none before

    def fate(self, device: str, release: str) -> Fate:
        """What becomes of ``device`` with ``release``."""
        place = mix64(device_hash(device) ^ device_hash(f"release {release}")) / _WHOLE
        for share, fate in (
            (self.fails, Fate.FAILS),
            (self.crashes, Fate.CRASHES),
            (self.refuses, Fate.REFUSES),
            (self.silent, Fate.SILENT),
            (self.defers, Fate.DEFERS),
        ):
            if place < share:
                return fate
            place -= share
        return Fate.HEALTHY
