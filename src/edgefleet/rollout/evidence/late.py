"""Failures that begin late, in one rollout: the detector on the order in which devices began."""

import math
from typing import Final, NamedTuple

import numpy as np

from edgefleet.protocol.rollout import GateSpec, LateFailures, TakenBack
from edgefleet.rollout.evidence import alphas
from edgefleet.rollout.evidence.detector import NOTHING_FOUND, Counts, Finding, detect
from edgefleet.rollout.evidence.ledger import DeviceStanding, Ledger
from edgefleet.rollout.evidence.sequential import e_value
from edgefleet.rollout.fleet.columns import Rows

# Bound once: Python 3.11 takes 0.2 us to find a member in its class.
_TRIAL: Final = DeviceStanding.TRIAL
_REFUSED: Final = DeviceStanding.REFUSED
_REVERTED: Final = DeviceStanding.REVERTED
_FAILED: Final = DeviceStanding.FAILED

_NO_COUNTS: Final = np.zeros(0, np.int64)
_BRAKE: Final = math.log(3)
"""The log of the mean likelihood ratio above which no more devices may be in trial at once.

It is no verdict. At a good rate it is seldom reached, and a brake costs minutes."""


class _Look(NamedTuple):
    """A finding, with the devices of each bucket that began and those of them that failed."""

    finding: Finding = NOTHING_FOUND
    begun: Counts = _NO_COUNTS
    bad: Counts = _NO_COUNTS


class Late:
    """The detector of one rollout. What it finds is a function of the ledger and its arguments."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._limit = 0.05
        self._judged: tuple[TakenBack, ...] = ()
        self._silent: Rows = np.zeros(0, np.int64)
        self._version = -1  # of the ledger at the last look
        self._last: _Look | None = None

    def arrange(self, spec: GateSpec, judged: tuple[TakenBack, ...]) -> None:
        """Set the limit. Devices of the parts in ``judged`` count no more."""
        if (spec.max_error_rate, judged) != (self._limit, self._judged):
            self._limit, self._judged, self._last = spec.max_error_rate, judged, None

    def update(self, silent: Rows) -> None:
        """Look anew. ``silent`` are the devices in trial that count as failed, ascending."""
        self._look(silent)

    @property
    def finding(self) -> Finding:
        """The finding of the last look. A first look is taken without silent devices."""
        return (self._last or self._look(self._silent)).finding

    @property
    def brakes(self) -> bool:
        """True while the limit of devices in trial does not grow."""
        return self.finding.log_ratio > _BRAKE

    def is_sure(self, spec: GateSpec) -> bool:
        """True if the detector fails the release."""
        return self.finding.log_e_value >= alphas.LATE.log_bar(spec)

    def failures(self, silent: Rows) -> LateFailures:
        """The finding as evidence: the failures since the start that contributes most."""
        finding, begun, bad = self._look(silent)
        if finding is NOTHING_FOUND:
            return LateFailures()
        activations = self._ledger.activations
        part = slice(finding.start, finding.end + 1)
        episode = activations.episode_of(finding.start)
        return LateFailures(
            bad=int(bad[part].sum()),
            size=int(begun[part].sum()),
            before=int(begun[: finding.start].sum()),
            since=activations.time(activations.bucket_key(finding.start)),
            episode_since=activations.time(episode) if episode else None,
            e_value=e_value(finding.log_e_value),
        )

    def _look(self, silent: Rows) -> _Look:
        """Look at the ledger, unless it and ``silent`` are those of the last look."""
        version = self._ledger.version
        known = self._last is not None and version == self._version
        if not known or not np.array_equal(silent, self._silent):
            self._version, self._silent, self._last = version, silent, self._new_look(silent)
        return self._last or _Look()

    def _new_look(self, silent: Rows) -> _Look:
        ledger, activations = self._ledger, self._ledger.activations
        failed = ledger.rows(_FAILED, _REFUSED)
        if not len(failed) and not len(silent):
            return _Look()
        silent = silent[ledger.standings(silent) == _TRIAL]
        bad = activations.count(failed) + activations.count(silent)
        begun = activations.begun() - activations.count(ledger.rows(_REVERTED))
        for part in self._judged:
            judged = activations.buckets_between(part.since, part.until)
            begun[judged] = bad[judged] = 0
        return _Look(detect(begun, bad, activations.log_weights(), self._limit), begun, bad)
